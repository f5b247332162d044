"""Base models by name: a key of the table, a hub id, or a folder on this disk.

To add a model, add one entry to its family's file; to add a family, write its file and name it in `_FAMILY_FILES`.
"""

import json
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from slimtune.errors import UserError, unknown_name
from slimtune.models import llama3, qwen3, smollm2
from slimtune.models.spec import Extension, Family, Linear, ModelSpec, Shapes, dense_linears, dense_params

__all__ = ["FAMILIES", "MODELS", "Extension", "Family", "Linear", "ModelSpec", "Shapes", "get_model"]

_FAMILY_FILES = (llama3, qwen3, smollm2)
MODELS = MappingProxyType({spec.key: spec for file in _FAMILY_FILES for spec in file.MODELS})
FAMILIES = tuple(dict.fromkeys(spec.traits for spec in MODELS.values()))
NOTE_FILE = "slimtune.json"  # {"note": "random weights"} in a model folder: printed beside every score


def get_model(name_or_path: str) -> ModelSpec:
    """The model with that key, hub id or Unsloth mirror, or the one in that folder. Case does not count.

    Raises UserError for an unknown name (with the nearest known one) and for a folder that cannot be used.
    """
    folder = Path(name_or_path).expanduser()
    if (folder / "config.json").is_file():
        return _from_folder(folder.resolve())
    if folder.is_dir():
        raise UserError(f"{folder} is a folder without a config.json: not a Hugging Face model.")
    wanted = name_or_path.lower()
    for spec in MODELS.values():
        repos = (spec.repo, spec.mirror_16bit, spec.dynamic_4bit, spec.plain_4bit)
        if spec.mirror_16bit and wanted == spec.mirror_16bit.lower():
            return replace(spec, repo=spec.mirror_16bit, gated=False)  # what was named is what is fetched
        if wanted in (spec.key, *(repo.lower() for repo in repos if repo)):
            return spec
    raise unknown_name("model", name_or_path, MODELS)


def _from_folder(folder: Path) -> ModelSpec:
    """A spec read from a folder's config.json; the family by model_type and, where two share it, by stop token."""
    config = _read_json(folder / "config.json")
    family = _family(folder, str(config.get("model_type")))
    shapes = _shapes(folder, config, family)
    return ModelSpec(
        key=folder.name,
        label=folder.name,
        traits=family,
        repo=None,
        folder=folder,
        shapes=shapes,
        linears=dense_linears(shapes),
        params_total=dense_params(shapes),
        native_context=config.get("max_position_embeddings", 2048),
        licence="unknown",
        note=str(_read_json(folder / NOTE_FILE).get("note", "")) if (folder / NOTE_FILE).is_file() else "",
    )


def _family(folder: Path, model_type: str) -> Family:
    candidates = [family for family in FAMILIES if family.model_type == model_type]
    if not candidates:
        known = ", ".join(sorted({family.model_type for family in FAMILIES}))
        raise UserError(f"{folder / 'config.json'} has model_type {model_type!r}. slimtune knows: {known}.")
    stop = _stop_token(folder)
    return next((family for family in candidates if family.stop_token == stop), candidates[0])


def _stop_token(folder: Path) -> str | None:
    tokenizer = folder / "tokenizer_config.json"
    eos = _read_json(tokenizer).get("eos_token") if tokenizer.is_file() else None
    return eos["content"] if isinstance(eos, dict) else eos


def _shapes(folder: Path, config: dict, family: Family) -> Shapes:
    try:
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        return Shapes(
            layers=config["num_hidden_layers"],
            hidden=hidden,
            intermediate=config["intermediate_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or hidden // heads,
            vocab=config["vocab_size"],
            tied=config.get("tie_word_embeddings", False),
            qk_norm=any(spec.shapes.qk_norm for spec in MODELS.values() if spec.traits == family),
        )
    except KeyError as missing:
        raise UserError(f"{folder / 'config.json'} does not say {missing}: its shape is unknown.") from missing


def _read_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object.")
    return value
