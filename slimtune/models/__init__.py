"""Base models by name: a key of the table, a folder on this disk, or any repository of the Hugging Face hub.

To add a model, add one entry to its family's file and its config.json to `configs/`; to add a family, write its file
and name it in `_FAMILY_FILES`.
"""

import re
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from slimtune.errors import UserError, unknown_name
from slimtune.models import gemma3, granite, lfm2, llama3, qwen3, qwen3_5, qwen_vl, smollm2
from slimtune.models.shapes import Linear, Shapes
from slimtune.models.spec import Extension, Family, ModelSpec
from slimtune.models.unlisted import from_folder, from_hub

__all__ = ["FAMILIES", "MODELS", "Extension", "Family", "Linear", "ModelSpec", "Shapes", "find_model", "get_model"]

_FAMILY_FILES = (llama3, qwen3, smollm2, gemma3, lfm2, granite, qwen3_5, qwen_vl)
MODELS = MappingProxyType({spec.key: spec for file in _FAMILY_FILES for spec in file.MODELS})
FAMILIES = tuple(dict.fromkeys(spec.traits for spec in MODELS.values()))
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def get_model(name_or_path: str, *, revision: str | None = None) -> ModelSpec:
    """The model with that key, hub id or Unsloth mirror, the one in that folder, or the one in that repository of the
    hub (at `revision`, a branch, tag or commit). Case does not count in what slimtune knows.

    Raises UserError for an unknown name (with the nearest known one), for a folder or repository that cannot be used,
    and ServiceAway where the hub is needed and does not answer.
    """
    folder = Path(name_or_path).expanduser()
    if (folder / "config.json").is_file():
        return from_folder(folder.resolve(), MODELS.values())
    if folder.is_dir():
        raise UserError(f"{folder} is a folder without a config.json: not a Hugging Face model.")
    if (spec := find_model(name_or_path)) is not None:
        return spec
    if _REPOSITORY.fullmatch(name_or_path):
        return from_hub(name_or_path, MODELS.values(), revision=revision)
    raise unknown_name("model", name_or_path, MODELS)


def find_model(name: str) -> ModelSpec | None:
    """The listed model with that key, hub id or Unsloth mirror, or None. Asks nobody."""
    wanted = name.lower()
    for spec in MODELS.values():
        repos = (spec.repo, spec.mirror_16bit, spec.dynamic_4bit, spec.plain_4bit)
        if spec.mirror_16bit and wanted == spec.mirror_16bit.lower():
            return replace(spec, repo=spec.mirror_16bit, gated=False)  # what was named is what is fetched
        if wanted in (spec.key, *(repo.lower() for repo in repos if repo)):
            return spec
    return None
