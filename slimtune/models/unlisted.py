"""Specs of models that are not in the table: a folder on this disk, or any repository of the hub, by its config.json.

The family is the one of that model type whose stop token the tokenizer or its template uses; failing that, only what
the architecture needs is kept of it. A copy of a known model (the same shape, window and rope base) has its native
context and YaRN.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.errors import UserError
from slimtune.models.hub import hub_file
from slimtune.models.other import OTHER_TYPES, other_family
from slimtune.models.shapes import Shapes, count_params, read_shapes, text_config
from slimtune.models.spec import Family, ModelSpec

NOTE_FILE = "slimtune.json"  # {"note": "random weights"} in a model folder: printed beside every score


@dataclass(frozen=True)
class _Files:
    """Where a model's small files are: None for one that it does not have."""

    find: Callable[[str], Path | None]

    def json(self, name: str) -> dict[str, Any]:
        path = self.find(name)
        return {} if path is None else _read_json(path)

    def text(self, name: str) -> str | None:
        path = self.find(name)
        return None if path is None else path.read_text(encoding="utf-8")


def from_folder(folder: Path, known: Iterable[ModelSpec]) -> ModelSpec:
    """The spec of a Hugging Face folder. Raises UserError where its config.json is not one that slimtune can train."""
    files = _Files(lambda name: path if (path := folder / name).is_file() else None)
    return _spec(folder / "config.json", files, known, label=folder.name, folder=folder)


def from_hub(repository: str, known: Iterable[ModelSpec], *, revision: str | None) -> ModelSpec:
    """The spec of a repository, from its config.json and its tokenizer's. Raises UserError and ServiceAway."""
    known = tuple(known)
    repositories = [spec.repo for spec in known if spec.repo]
    files = _Files(lambda name: hub_file(repository, name, revision=revision, known=repositories))
    config = files.find("config.json")
    if config is None:
        raise UserError(
            f"{repository} has no config.json: it is no model, or a GGUF. Give the repository it was made from."
        )
    return _spec(config, files, known, label=repository, repo=repository)


def _spec(
    path: Path,
    files: _Files,
    known: Iterable[ModelSpec],
    *,
    label: str,
    repo: str | None = None,
    folder: Path | None = None,
) -> ModelSpec:
    config, known = _read_json(path), tuple(known)
    where = f"{repo}'s config.json" if repo else str(path)
    shapes = _shapes(where, config, {spec.traits.model_type for spec in known})
    like = [spec for spec in known if spec.traits.model_type == config["model_type"]]
    twins = [spec for spec in like if _essence(spec.config(), spec.shapes) == _essence(config, shapes)]
    traits = _family(config, files, dict.fromkeys(spec.traits for spec in [*twins, *like]))
    twin = next((spec for spec in twins if spec.traits == traits), None)
    window = text_config(config).get("max_position_embeddings", 2048)
    return ModelSpec(
        key=label.rpartition("/")[2],
        label=label,
        traits=traits,
        config_file=path,
        repo=repo,
        folder=folder,
        params_total=count_params(shapes),
        native_context=twin.native_context if twin else window,
        licence="unknown",
        extension=twin.extension if twin else None,
        note=str(files.json(NOTE_FILE).get("note", "")) if folder else "",
    )


def _shapes(where: str, config: Mapping[str, Any], families: set[str]) -> Shapes:
    kinds = sorted(families.union(OTHER_TYPES))
    if config.get("model_type") not in kinds:
        raise UserError(f"{where} has model_type {config.get('model_type')!r}. slimtune knows: {', '.join(kinds)}.")
    method = (config.get("quantization_config") or {}).get("quant_method", "bitsandbytes")
    if method != "bitsandbytes":
        raise UserError(
            f"{where} says that its weights are quantised by {method}. Give the 16-bit model it was made from."
        )
    try:
        return read_shapes(config)
    except KeyError as missing:
        raise UserError(f"{where} does not say {missing}: its shape is unknown.") from missing
    except ValueError as error:
        raise UserError(f"{where} cannot be used: {error}.") from error


def _essence(config: Mapping[str, Any], shapes: Shapes) -> tuple[Any, ...]:
    """What a copy of a model has in common with it, whoever wrote its config."""
    text = text_config(config)
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    rope = rope.get("full_attention", rope)
    theta = text.get("rope_theta", rope.get("rope_theta"))
    kind = rope.get("rope_type", rope.get("type", "default"))
    return shapes, text.get("max_position_embeddings"), theta, "default" if kind == "mrope" else kind


def _family(config: Mapping[str, Any], files: _Files, candidates: Iterable[Family]) -> Family:
    candidates = tuple(candidates)
    tokenizer = files.json("tokenizer_config.json")
    eos = tokenizer.get("eos_token")
    eos = eos["content"] if isinstance(eos, dict) else eos  # as older tokenizers write it
    template = _template(tokenizer.get("chat_template")) or files.text("chat_template.jinja")
    if candidates and eos is None and template is None:
        return candidates[0]
    for family in candidates:
        stops = family.stop_token == eos or family.stop_token in (template or "")
        if stops and (template is None or family.replaces in template):
            return family
    return other_family(next(iter(candidates), None), config["model_type"], stop_token=eos, template=template)


def _template(value: Any) -> str | None:
    """The chat template that a tokenizer_config.json holds: a text, or several by name."""
    if isinstance(value, list):
        return next((one["template"] for one in value if one.get("name") == "default"), None)
    return value


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object.")
    return value
