"""Where a model's files are: one folder at one commit, resolved here so that Unsloth never looks a name up itself."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from slimtune.engine.embedded import Say, embedded_folder
from slimtune.errors import UserError
from slimtune.files import MANIFEST, damage, digest_json, read_json
from slimtune.models import ModelSpec
from slimtune.models.hub import hub_refusals
from slimtune.models.on_disk import READ, folder_digest


@dataclass(frozen=True)
class Source:
    """A model's folder, where it came from, the commit it was fetched at (None for local ones), and its digest."""

    folder: Path
    repository: str
    revision: str | None
    digest: str


def resolve_source(spec: ModelSpec, *, quantisation: str, revision: str | None) -> Source:
    """The folder that holds a model's files, fetched at one commit where it is on a hub.

    Raises UserError (a model that is planned for only, no such repository, gated, only pickled weights, code of its
    own) and ServiceAway (no network and not in the cache).
    """
    if not spec.trainable:
        raise UserError(spec.untrainable)
    folder = local_folder(spec)
    if folder is not None and (spec.repo is None or spec.folder is not None):
        source = _local(folder)
    else:
        repository = spec.repository(quantisation)
        folder = _fetch(repository, revision)
        source = Source(folder, repository, folder.name, digest_json([repository, folder.name]))
    _refuse_remote_code(source.folder)
    return source


def local_folder(spec: ModelSpec, *, revision: str | None = None, say: Say | None = None) -> Path | None:
    """The folder of a model that needs no network: embedded, a local path, or fetched before, in whatever precision;
    else None. `say` hears of an embedded model that is made first."""
    if spec.folder is not None:
        return Path(spec.folder)
    if spec.repo is None:
        return embedded_folder(say=say)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for repository in filter(None, (spec.repo, spec.mirror_16bit, spec.dynamic_4bit, spec.plain_4bit)):
        with contextlib.suppress(LocalEntryNotFoundError):
            return Path(
                snapshot_download(repository, revision=revision, allow_patterns=list(READ), local_files_only=True)
            )
    return None


def download_folder(spec: ModelSpec, *, revision: str | None) -> Path | None:
    """Where a model will be fetched to; None where that is not needed."""
    if local_folder(spec, revision=revision) is not None:
        return None
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def _local(folder: Path) -> Source:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no model: config.json is missing.")
    if not list(folder.glob("*.safetensors")):
        raise UserError(
            f"{folder} holds no *.safetensors. Pickled weights (.bin, .pt) are not loaded: they can run code."
        )
    if (folder / MANIFEST).is_file() and damage(folder) is None:
        return Source(folder, folder.name, None, digest_json(read_json(folder / MANIFEST)))
    return Source(folder, folder.name, None, folder_digest(folder))


def _fetch(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    with hub_refusals(repository, revision):
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(READ)))


def _refuse_remote_code(folder: Path) -> None:
    config = read_json(folder / "config.json")
    if "auto_map" in config or "trust_remote_code" in config:
        raise UserError(f"{folder.name} wants to run code of its own (auto_map in config.json). slimtune does not.")
