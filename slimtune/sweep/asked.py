"""What may stand in a matrix file, and what one cell of it asks for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from slimtune.check import Ready
from slimtune.recipe import Recipe, Section, Teacher


class Entrant(Teacher):
    """A served model that takes part: scored on every task, so many times."""

    runs: int = Field(3, ge=1, le=100)


class Matrix(Section):
    """What may stand in a matrix file."""

    base: str | dict[str, Any] = Field({})
    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] | dict[str, dict[str, Any]] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((17,), min_length=1)
    axes: dict[str, tuple[Any, ...]] = Field({})
    contestants: dict[str, dict[str, Any]] = Field({})
    served: tuple[Entrant, ...] = ()


def short_id(fingerprint: str) -> str:
    """A cell's id, as people type it."""
    return fingerprint[:12]


@dataclass(frozen=True)
class Asked:
    """One cell that a matrix asks for. `wrong`: why it cannot be begun now, where its data are away."""

    fingerprint: str
    contestant: str
    model: str
    task: str
    seed: int
    axes: Mapping[str, Any]
    recipe: Recipe
    served: Entrant | None
    identity: Mapping[str, Any]
    ready: Ready | None
    wrong: str = ""

    @property
    def id(self) -> str:
        return short_id(self.fingerprint)

    def as_json(self) -> dict[str, Any]:
        """What cell.json holds."""
        named = ("contestant", "model", "task", "seed")
        served = {"served": self.served.model_dump(mode="json")} if self.served else {}
        return {
            "cell": self.fingerprint,
            **{name: getattr(self, name) for name in named},
            "axes": dict(self.axes),
            "recipe": self.recipe.as_json(),
            **served,
            "identity": dict(self.identity),
        }
