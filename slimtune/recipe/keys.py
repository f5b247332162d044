"""The keys of a recipe: which there are, what each takes, and which one is meant by a word that is none."""

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from slimtune.errors import did_you_mean, nearest
from slimtune.recipe.sections import Context, Recipe

_ELSEWHERE = {  # what other tools call it
    "learning_rate": "train.lr",
    "batch_size": "train.batch",
    "per_device_train_batch_size": "train.micro_batch",
    "num_epochs": "train.epochs",
    "num_train_epochs": "train.epochs",
    "lr_scheduler_type": "train.schedule",
    "warmup_ratio": "train.warmup",
    "rank": "lora.r",
    "lora_rank": "lora.r",
    "lora_r": "lora.r",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "max_seq_length": "context",
    "max_length": "context",
    "base_model": "model",
    "model_name": "model",
    "dataset": "data.train",
}
_OTHERS = ("teacher.", "judge.")  # served models: they share keys with each other, and some with the run's own
_SIGNS = {"Gt": "above", "Ge": "from", "Lt": "below", "Le": "at most"}
_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Key:
    """One key: "train.lr", what it takes, what it is where it is not given, and what it does."""

    name: str
    takes: str
    default: str
    gloss: str


def every_key(section: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[Key]:
    """The keys of a section and of the sections in it, in their order."""
    for name, field in section.model_fields.items():
        inner = _section(field.annotation)
        if field.description or inner is None:
            yield Key(f"{prefix}{name}", _takes(field), _default(field), field.description or "")
        if inner is not None:
            yield from every_key(inner, f"{prefix}{name}.")


def meant(keys: Sequence[str], *, whole: bool = False) -> str:
    """A sentence that names the key which is meant by an unknown one, or those there are; `whole`: with its section,
    where it was written so."""
    *path, name = keys
    prefix = "".join(f"{part}." for part in path)
    word = name.lower().replace("-", "_")
    full = _ELSEWHERE.get(word) or _elsewhere(word)
    if full is not None:
        return f"Did you mean {(full if whole else full.removeprefix(prefix))!r}?"
    section: Any = Recipe
    for part in path:
        field = getattr(section, "model_fields", {}).get(part)
        section = _section(field.annotation) if field else None
    known = getattr(section, "model_fields", {})
    near = nearest(name, known) if whole else None
    return f"Did you mean {prefix + near!r}?" if near else did_you_mean(name, known)


def _elsewhere(word: str) -> str | None:
    """The one key of another section that has this name: `lr` at the top is `train.lr`."""
    found = [key.name for key in every_key() if key.name.split(".")[-1] == word and not key.name.startswith(_OTHERS)]
    return found[0] if len(found) == 1 else None


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that a key holds, if need be or not at all; None for a plain value."""
    return next((part for part in _parts(annotation) if isinstance(part, type) and issubclass(part, BaseModel)), None)


def _takes(field: FieldInfo) -> str:
    parts = [part for part in _parts(field.annotation) if part is not type(None)]
    words = " or ".join(_word(part) for part in parts)
    limits = {type(limit).__name__: getattr(limit, type(limit).__name__.lower()) for limit in field.metadata}
    shown = [f"{sign} {limits[name]:,}" for name, sign in _SIGNS.items() if name in limits]
    return ", ".join([words, *shown])


def _parts(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (types.UnionType, Union) else (annotation,)


def _word(part: Any) -> str:
    if get_origin(part) is Literal:
        return ", ".join(get_args(part))
    if get_origin(part) is tuple:
        return "list of texts"
    if get_origin(part) is dict:
        return "section of texts"
    if part is Context:
        return "number of tokens, or a section"
    return "section" if _section(part) is not None else _WORDS[part]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.default
    if isinstance(value, BaseModel):
        return str(value.model_dump())
    if value is None or value in ((), {}):
        return ""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
