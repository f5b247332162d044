"""What may stand in a recipe, section by section. The defaults are the published study's, but for batch and rate."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_serializer, model_validator

from slimtune.endpoint import Endpoint, in_clear, key_problem, wrong_address, wrong_budget, wrong_key_name
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
    """Share of an adapter's inputs that is dropped at random. Above 0 rows share no prefixes, unless train.collation
    asks for it: they would share what is dropped."""


class Train(Section):
    """How the adapter is trained. Epochs are the published study's, batch and rate what was measured to learn more than
    its 16 at 5e-5 (BENCHMARKS.md)."""

    epochs: float = Field(4, gt=0, le=10_000)
    """How often every row is seen."""
    lr: float = Field(4e-4, gt=0, lt=1)
    """Peak learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warmup."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    batch: int | None = Field(None, ge=1, le=65_536)
    """Rows per optimizer step, however split to fit. Not given: 64, or 32, 16 or 8 where 64 make under 150 steps."""
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
    test_seed: int | None = Field(None, ge=0)
    """Of the choice of test rows, in place of `seed`: so runs with several seeds answer the same rows."""
    validation_rows: int | None = Field(None, ge=1)
    """Score on so many training rows, held out of training, in place of the test rows: to choose settings by. The same
    seed chooses them; rows of one group, or that ask the same, stay together."""
    skip_bad: bool = False
    """Leave rows out, counted, that cannot be read or that the model's template cannot hold."""
    long_rows: Literal["error", "drop"] = "error"
    """What to do with rows longer than the context. Answers are never cut."""
    allow_overlap: bool = False
    """Run although training rows stand in the test set."""


class Evaluate(Section):
    """How base and tuned are scored."""

    few_shot: int = Field(3, ge=0, le=1000)
    """Training examples in the few-shot prompt; with few classes, at least one of each. 0 leaves that score out."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Longest answer, thought included; where it is not given, the task's own limit, and room to think."""
    thinking_tokens: int = Field(4096, ge=1)
    """That room, with `thinking: on`."""


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


class Served(Section):
    """A model behind an OpenAI-compatible endpoint."""

    model: str
    """The name it is served under."""
    base_url: str
    """Where it is served, up to the version: http://127.0.0.1:8000/v1."""
    key_env: str | None = None
    """The environment variable that holds the key: its name, never the key."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Longest answer, thoughts included; the task's own limit where it is not given."""
    concurrency: int = Field(4, ge=1, le=256)
    """Requests at once."""
    budget_usd: float | None = Field(None, gt=0)
    """Dollars that may be spent; needs both prices."""
    budget_tokens: int | None = Field(None, ge=1)
    """Tokens that may be spent, prompts and answers."""
    usd_per_m_input: float | None = Field(None, ge=0)
    """Dollars per million tokens of prompts."""
    usd_per_m_output: float | None = Field(None, ge=0)
    """Dollars per million tokens of answers."""
    timeout_s: float = Field(300, gt=0)
    """Longest time for one call."""
    patience_s: float = Field(300, ge=0)
    """How long it is waited for while it fails or holds off; then the run stops, to be gone on with later."""

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        return _right(value, wrong_address(value))

    @field_validator("key_env")
    @classmethod
    def _key_name(cls, value: str | None) -> str | None:
        return value if value is None else _right(value, wrong_key_name(value))

    @model_validator(mode="after")
    def _prices(self) -> "Served":
        return _right(self, wrong_budget(self.budget_usd, self.usd_per_m_input, self.usd_per_m_output))

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(**{name: getattr(self, name) for name in Served.model_fields})

    @property
    def asked(self) -> dict[str, Any]:
        """What of it can change an answer."""
        return self.model_dump(mode="json", include={"model", "base_url", "max_new_tokens", "few_shot"})


class Teacher(Served):
    """A large model that answers the same test rows: the column that the tuned model is held against."""

    few_shot: int = Field(0, ge=0, le=1000)
    """Training examples in its prompt; with few classes, at least one of each."""


class Judge(Served):
    """A model that says whether an answer is right, where no rule can."""


def _right(value: Any, wrong: str) -> Any:
    if wrong:
        raise ValueError(wrong)
    return value


class Recipe(Section):
    """Everything that decides a run's result."""

    model: str
    """A name of `slimtune list models`, the Hugging Face repository of one, or a folder."""
    revision: str | None = None
    """Commit of a Hugging Face repository; resolved and pinned at the first run."""
    task: str | None = None
    """A name of `slimtune list tasks`, hub:NAME for all its rows, or a folder: job.json, train.jsonl and test.jsonl."""
    data: Data = Data()
    lora: Lora = Lora()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    context: Context = Context()
    """A number of tokens, or {length, method}."""
    thinking: Literal["off", "on", "mixed"] = "off"
    """For models with a thinking mode; `mixed` learns three rows that carry reasoning with one that does not, and is
    scored without a thought."""
    teacher: Teacher | None = None
    """A served model that answers the same test rows, to be compared with."""
    judge: Judge | None = None
    """A served model that says whether texts are right: the score where the scorer is `judge`, else beside it."""
    seed: int = Field(17, ge=0)
    """Of the choice of rows, their order, the adapter's first weights, and answers that are drawn."""

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
        if self.data.validation_rows and self.data.test_rows:
            raise ValueError(
                "gives data.validation_rows and data.test_rows: a run is scored on one of the two, so leave one out"
            )
        if self.train.micro_batch and self.train.batch and self.train.batch % self.train.micro_batch:
            raise ValueError(
                f"train.batch {self.train.batch} is not a multiple of micro_batch {self.train.micro_batch}"
            )
        return self

    @property
    def key_notes(self) -> list[str]:
        """What is to be said, on this machine, of the keys of the served models."""
        served = {"teacher": self.teacher, "judge": self.judge}
        ends = {name: one.endpoint for name, one in served.items() if one is not None}
        clear = [f"The {name}'s key goes to {end.host} unencrypted." for name, end in ends.items() if in_clear(end)]
        return [*filter(None, map(key_problem, ends.values())), *clear]

    def as_json(self) -> dict[str, Any]:
        absent: dict[str, Any] = {name: True for name in ("teacher", "judge") if getattr(self, name) is None}
        if self.data.validation_rows is None:
            absent["data"] = {"validation_rows"}
        return self.model_dump(mode="json", exclude=absent)

    @property
    def thinking_room(self) -> int:
        """Tokens that an answer's thought may take."""
        return self.evaluate.thinking_tokens if self.thinking == "on" else 0

    def answer_limit(self, task_tokens: int) -> int:
        """Tokens that an answer may have where the task's own need so many: as pinned, or those and a thought's."""
        return self.evaluate.max_new_tokens or task_tokens + self.thinking_room

    @property
    def digest(self) -> str:
        """SHA-256 over every key that can change base, training or tuned: not over when checkpoints are written, nor
        over the teacher, who is asked in a step of its own."""
        value = self.as_json()
        value.pop("teacher", None)
        if self.judge is not None:
            value["judge"] = self.judge.asked
        for key in ("checkpoint_minutes", "checkpoint_steps", "keep_checkpoints"):
            del value["train"][key]
        return digest_json(value)
