"""What may stand in a recipe, section by section. The defaults are the published study's."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_serializer, model_validator

from slimtune.files import digest_json

_FILE_KEYS = ("test", "format", "columns", "kind", "instruction", "scorer")


class Section(BaseModel):
    """A part of a recipe. Unknown keys are errors, and a loaded recipe never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Lora(Section):
    """Which directions the adapter may move in. The defaults are the published study's."""

    r: int = Field(64, ge=1, le=1024)
    """Rank."""
    alpha: int = Field(64, ge=1, le=65_536)
    """Scale; the update is multiplied by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Above 0 switches Unsloth's fast kernels off."""


class Train(Section):
    """How the adapter is trained. The defaults are the published study's."""

    epochs: float = Field(4, gt=0, le=10_000)
    """How often every row is seen."""
    lr: float = Field(5e-5, gt=0, lt=1)
    """Peak learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warmup."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    batch: int = Field(16, ge=1, le=65_536)
    """Rows per optimizer step. It never changes, whatever has to be split to fit."""
    micro_batch: int | None = Field(None, ge=1)
    """Rows per forward pass; chosen by the plan where it is not given."""
    collation: Literal["auto", "padded", "shared-prefix"] = "auto"
    """How rows are laid out; `auto` takes the fastest that is proven for the model and machine."""
    quantisation: Literal["auto", "4bit", "16bit"] = "auto"
    """How the frozen weights are held; `auto` takes 16-bit where it fits."""
    weight_decay: float = Field(0.0, ge=0)
    """Of the adapter's weights."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Longer gradients are scaled down to this."""
    checkpoint_minutes: float = Field(5, gt=0)
    """Save every so many minutes."""
    checkpoint_steps: int | None = Field(None, ge=1)
    """Save every so many steps as well."""
    keep_checkpoints: int = Field(2, ge=2)
    """So many of the newest are kept."""


class Data(Section):
    """Which rows are used: of a task (the selection), or of files (train, test and how to read them)."""

    train: str | None = None
    """File of training rows, .jsonl, .csv or .tsv, seen from the folder the command runs in."""
    test: str | None = None
    """File of test rows; without one a fifth of the training rows is held out."""
    format: str | None = None
    """How rows are written, such as `alpaca`: one of README's table. Told from the first row where it is not given."""
    columns: dict[str, str] = {}
    """Our field: your column, as in {text: message, label: intent} or {prompt: question, completion: reply}; and
    `group:` where rows belong together."""
    kind: Literal["classification", "qa", "text"] | None = None
    """What prompt-and-answer rows are; told from the rows where it is not given."""
    instruction: str | None = None
    """The system turn."""
    scorer: str | None = None
    """A name of `slimtune list scorers`, in place of the one that goes with the rows."""
    labels: tuple[str, ...] = ()
    """Keep only these classes."""
    train_rows: int | None = Field(None, ge=1)
    """At most so many, chosen by `seed`."""
    test_rows: int | None = Field(None, ge=1)
    """The same for test rows."""
    skip_bad: bool = False
    """Leave unreadable rows out, counted, instead of refusing the file."""
    long_rows: Literal["error", "drop"] = "error"
    """What to do with rows longer than the context. Answers are never cut."""
    allow_overlap: bool = False
    """Run although training rows stand in the test set."""


class Evaluate(Section):
    """How base and tuned are scored."""

    few_shot: int = Field(3, ge=0, le=1000)
    """Training examples in the few-shot prompt; with few classes, at least one of each. 0 leaves that score out."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Longest answer; the task's own limit where it is not given."""


class Context(Section):
    """How long a row may be, and how positions beyond the model's own window are reached. A number is short for
    {length: number}."""

    length: int = Field(2048, ge=64, le=16 * 1024**2)
    """Longest row in tokens, prompt and answer."""
    method: Literal["none", "yarn"] = "none"
    """`yarn` stretches the window of a model that is meant for it."""
    needles: int = Field(20, ge=1)
    """Rows of the long-context check that comes with `yarn`, at each length."""

    @model_validator(mode="after")
    def _nothing_unread(self) -> "Context":
        if self.method == "none" and "needles" in self.model_fields_set:
            raise ValueError("gives needles, which only `method: yarn` asks")
        return self

    @model_serializer
    def _in_short(self) -> int | dict[str, Any]:
        return self.length if self.method == "none" else dict(self)


class Recipe(Section):
    """Everything that decides a run's result."""

    model: str
    """A name of `slimtune list models`, the Hugging Face repository of one, or a folder."""
    revision: str | None = None
    """Commit of a Hugging Face repository; resolved and pinned at the first run."""
    task: str | None = None
    """A name of `slimtune list tasks`, or a folder with job.json, train.jsonl and test.jsonl."""
    data: Data = Data()
    lora: Lora = Lora()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    context: Context = Context()
    """A number of tokens, or {length, method}."""
    thinking: Literal["off", "on", "mixed"] = "off"
    """For models with a thinking mode; `mixed` thinks in rows that carry reasoning."""
    seed: int = Field(17, ge=0)
    """Of the choice of rows, their order, and the adapter's first weights."""

    @field_validator("context", mode="before")
    @classmethod
    def _number_or_section(cls, value: Any) -> Any:
        if not isinstance(value, int | float | dict | Context):
            raise ValueError("is a number of tokens, or {length: 131072, method: yarn}")
        return {"length": value} if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _one_source_of_rows(self) -> "Recipe":
        if self.task is None and self.data.train is None:
            raise ValueError("names no rows: give `task:`, or `data:` with `train:`")
        if self.task is not None and self.data.train is not None:
            raise ValueError("names rows twice: give `task:` or `data.train:`, not both")
        if self.task is not None:
            unread = [key for key in _FILE_KEYS if getattr(self.data, key) != getattr(Data(), key)]
            if unread:
                raise ValueError(
                    f"gives {', '.join(f'data.{key}' for key in unread)}, which only files need: a task brings its own"
                )
        if self.train.micro_batch and self.train.batch % self.train.micro_batch:
            raise ValueError(
                f"train.batch {self.train.batch} is not a multiple of micro_batch {self.train.micro_batch}"
            )
        return self

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """SHA-256 over every key that can change the result: not over when checkpoints are written."""
        value = self.as_json()
        for key in ("checkpoint_minutes", "checkpoint_steps", "keep_checkpoints"):
            del value["train"][key]
        return digest_json(value)
