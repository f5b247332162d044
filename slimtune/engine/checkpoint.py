"""Checkpoints that are whole or absent: checkpoints/step-00000120/, digest manifest last, then one rename.

The newest whole one is resumed from. A damaged one is set aside under another name, never deleted and never parsed.
Rotation goes by step, not by the clock, and only after the newest has been verified.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from slimtune.errors import CannotWrite
from slimtune.files import damage, publish_folder, remove_folder, sweep, writing

_NAME = re.compile(r"step-(\d{8})")
_MOST_MISSES = 3


class Misses:
    """Checkpoints that could not be written, one after another. A full disk may have room again when the next is due,
    so the run goes on, and `say` is told; the third in a row is raised."""

    def __init__(self, say: Callable[[str], None]):
        self.say, self.count = say, 0

    @contextlib.contextmanager
    def forgiven(self, *, last: bool) -> Iterator[None]:
        """Around the writing of one. `last`: no other will follow, so nothing is forgiven."""
        try:
            yield
        except CannotWrite as error:
            self.count += 1
            if last or self.count == _MOST_MISSES:
                raise
            self.say(
                f"No checkpoint was written, and a kill now costs the steps since the last one. {error} "
                f"The fine-tune goes on, and stops at {_MOST_MISSES} such failures in a row."
            )
        else:
            self.count = 0


def write_checkpoint(folder: Path, step: int, fill: Callable[[Path], None], *, keep: int) -> Path:
    """Write a checkpoint of `step` and drop all but the newest `keep`. Raises CannotWrite; older ones then stand."""
    path = folder / f"step-{step:08d}"
    if not folder.parent.is_dir():
        raise CannotWrite(f"{folder.parent} went away.")
    publish_folder(path, fill)
    if wrong := damage(path):
        raise CannotWrite(f"Checkpoint {path} was written and cannot be read back: {wrong}. Choose another --out.")
    with writing(path):
        for old in checkpoints(folder)[:-keep]:
            remove_folder(old)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest step first, whole or not."""
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))


def checkpoint_step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def newest_whole(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest undamaged checkpoint, or None, and a sentence for each damaged one that was set aside."""
    if not folder.is_dir():
        return None, []
    sweep(folder)
    notes = []
    for path in reversed(checkpoints(folder)):
        wrong = damage(path)
        if wrong is None:
            return path, notes
        aside = _free_name(folder, f"damaged-{path.name}")
        with writing(aside):
            path.rename(aside)
        notes.append(f"Checkpoint {path.name} is damaged ({wrong}); it is set aside as {aside.name}.")
    return None, notes


def _free_name(folder: Path, name: str) -> Path:
    number, path = 1, folder / name
    while path.exists():
        number, path = number + 1, folder / f"{name}-{number}"
    return path
