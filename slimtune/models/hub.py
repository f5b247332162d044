"""Small files of a repository on the Hugging Face hub, and what to say when it refuses.

huggingface_hub honours HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and HF_HOME. It is imported late: known models and folders
need no hub.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from slimtune.errors import ServiceAway, UserError, nearest
from slimtune.files import DISK_GONE

# read at the client's import; what fails is said once, by us, and not at each of its retries
QUIET_HUB = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
}


def hub_file(
    repository: str, name: str, *, revision: str | None, known: Iterable[str], dataset: bool = False
) -> Path | None:
    """A file of a repository, from the cache where it is there, else fetched; None where the repository has none.
    `known`: repositories that one which is not there may have been meant for. `dataset`: it holds data, not a model.

    Raises UserError (no such repository or revision, gated) and ServiceAway (no network and not in the cache).
    """
    for variable, value in QUIET_HUB.items():
        os.environ.setdefault(variable, value)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    kind = "dataset" if dataset else "model"
    try:
        return Path(hf_hub_download(repository, name, repo_type=kind, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    instead = "a folder of task folders as --data" if dataset else "a local folder as `model:`"
    with hub_refusals(repository, revision, known=known, instead=instead):
        try:
            return Path(hf_hub_download(repository, name, repo_type=kind, revision=revision))
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):
                raise  # no network
            return None


@contextmanager
def hub_refusals(
    repository: str,
    revision: str | None,
    *,
    known: Iterable[str] = (),
    instead: str = "a local folder as `model:`",
) -> Iterator[None]:
    """What a hub answers, as sentences: UserError where the name or the rights are wrong, ServiceAway where it is."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except GatedRepoError as error:
        raise UserError(
            f"{repository} is gated. Accept its licence on its page on the hub, then set HF_TOKEN to a token "
            "of that account."
        ) from error
    except RepositoryNotFoundError as error:
        near = nearest(repository, known)
        raise UserError(
            f"The hub has no repository {repository}, or it is private and HF_TOKEN is not set."
            + (f" Did you mean {near!r}?" if near else "")
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"{repository} has no revision {revision}.") from error
    except (HfHubHTTPError, OSError) as error:
        if error.errno in DISK_GONE:
            raise  # LocalEntryNotFoundError is an OSError: no network, nothing cached
        where = os.environ.get("HF_ENDPOINT", "the hub")
        raise ServiceAway(
            f"{repository} is not in the cache and {where} did not answer ({error}). Try again with a "
            f"network, or give {instead}."
        ) from error
