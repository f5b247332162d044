"""What a contestant is given, and what it may tell afterwards. No torch here: who starts it reads these too."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slimtune.files import read_json
from slimtune.models import ModelSpec, get_model

OWN_CHOICE = "own-choice"  # of the library: what it does where nothing is said
SLIMTUNE, UNSLOTH, PLAIN = "slimtune", "unsloth", "plain"
OUT_OF_MEMORY = "out of memory"  # a failure that says something of the way, and not of an accident
_SAID = {SLIMTUNE: "slimtune", UNSLOTH: "Unsloth", PLAIN: "TRL + PEFT + bitsandbytes"}


@dataclass(frozen=True)
class Way:
    """How to train. `collation`: "shared-prefix" (slimtune's alone), "padded", "padding-free", "packed" or OWN_CHOICE.
    `micro_batch` examples are computed at a time, however they are laid out: a packed row is as long
    as so many examples are on average, or as the longest is."""

    library: str
    collation: str
    quantisation: str  # "4bit" | "16bit"
    precision: str  # "bf16" | "fp16" | "fp32"
    checkpointing: bool
    micro_batch: int
    optimizer: str  # "adamw" | "adamw_8bit"

    @property
    def who(self) -> str:
        return _SAID[self.library]

    @property
    def how(self) -> str:
        layout = "as it likes" if self.collation == OWN_CHOICE else self.collation
        memory = ", checkpointing" if self.checkpointing else ""
        memory += ", 8-bit Adam" if self.optimizer == "adamw_8bit" else ""
        weights = "" if self.precision == "fp32" and self.quantisation == "16bit" else f"{self.quantisation} in "
        return f"{layout}, {weights}{self.precision}, {self.micro_batch} at a time{memory}"

    @property
    def slug(self) -> str:
        parts = (self.library, self.collation, self.quantisation, self.precision, str(self.micro_batch))
        return "-".join((*parts, "ckpt") if self.checkpointing else parts)


@dataclass(frozen=True)
class Job:
    """`rows` is a JSON file of pairs of prompt and answer, as token ids, of that digest. `where` says the machine, its
    versions and slimtune's own code: whoever trained elsewhere did another job. `shape` names a model whose shape is
    trained with random weights; else `model` and its `revision` are a recipe's. `as_gpu`: a smaller card whose memory
    there is, or None. `warm` steps of the optimizer are not timed, the `steps` after them are."""

    way: Way
    model: str
    revision: str | None
    shape: str | None
    as_gpu: str | None
    rows: str
    rows_sha256: str
    where: str
    window: int
    r: int
    batch: int
    lr: float
    seed: int
    warm: int
    steps: int

    @classmethod
    def read(cls, path: Path) -> "Job":
        data = read_json(path)
        return cls(**data | {"way": Way(**data["way"])})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def read_rows(self) -> list[tuple[list[int], list[int]]]:
        return [(prompt, answer) for prompt, answer in read_json(Path(self.rows))]

    @property
    def spec(self) -> ModelSpec:
        return get_model(self.shape) if self.shape else get_model(self.model, revision=self.revision)

    @property
    def last_step(self) -> int:
        return self.warm + self.steps


@dataclass(frozen=True)
class Pace:
    """What was seen. `seconds`, `examples`, the tokens and `recompiled` (graphs that were compiled) are of the timed
    steps alone; losses and the least gradient norm of all: `first_loss` and `last_loss` are means of the first and the
    last tenth; the norm is one that is not finite where there was any, but for steps that fp16's scaler left out.
    `tokens` are those of the examples, padding left out, however often or seldom they were computed. `peak_gib` is what
    torch reserved on the card at most since the first step; None on a CPU."""

    seconds: float
    examples: float
    tokens: int
    supervised_tokens: int
    peak_gib: float | None
    recompiled: int
    first_loss: float
    last_loss: float
    least_grad_norm: float

    @property
    def refusal(self) -> str:
        """Why this is no speed; empty where it is one."""
        if not self.last_loss < self.first_loss:  # also where one is not a number
            return f"the loss did not fall: {self.first_loss:.3f} to {self.last_loss:.3f}"
        if not 0 < self.least_grad_norm < float("inf"):
            return f"a step had a gradient of norm {self.least_grad_norm:g}"
        return ""
