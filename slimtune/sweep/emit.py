"""A study written out for engines that rent or queue machines: SkyPilot tasks and a Slurm array. Writes, runs nothing.

Every file does the same: `slimtune sweep run MATRIX --model M` or `--cell ID` over one store, whose exit code says what
to do next: 75 and 69 may be tried again, any other than 0 is final.
Sources: SkyPilot 0.14.1's task YAML (docs.skypilot.co, "YAML spec" and, for buckets and their modes, "Cloud Buckets";
sky/data/storage.py for names, sky/backends/task_codegen.py for the wait at a task's end), sbatch's manual page.
"""

import importlib.resources
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from slimtune import __version__
from slimtune.errors import ServiceAway, UserError
from slimtune.files import write_text
from slimtune.gpus import GPUS, GpuSpec
from slimtune.sweep.asked import Asked
from slimtune.sweep.outlook import fitting_cards

ENGINES = ("sky", "slurm")
SKY_NAMES = {  # ours -> SkyPilot's, of cards that can be rented
    "T4": "T4",
    "L4": "L4",
    "L40S": "L40S",
    "RTX 3090": "RTX3090",
    "RTX 4090": "RTX4090",
    "RTX 5090": "RTX5090",
    "RTX A6000": "RTXA6000",
    "A10": "A10G",
    "A100-40GB": "A100",
    "A100-80GB": "A100-80GB",
    "H100": "H100",
    "H200": "H200",
}
_BUCKET = re.compile(
    r"((s3|gs|r2|nebius|cw|oci)://[a-z0-9][-\w.]+[a-z0-9](@[-a-z0-9]+)?(/\S*)?"
    r"|cos://[-a-z0-9]+/[a-z0-9][-a-z0-9.]+(/\S*)?|https://[a-z0-9]+\.blob\.core\.windows\.net/[-a-z0-9]+(/\S*)?"
    r"|[a-z0-9][-a-z0-9]{1,61}[a-z0-9])"
)
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9]+")


def emit(
    engine: str, matrix: Path, cells: Sequence[Asked], *, store: str, out: Path, data_dir: Path | None = None
) -> list[Path]:
    """Write what `engine` takes into `out`, and say which files. `store` is a bucket for sky (`gs://name` for one that
    is there, `name` for one that SkyPilot makes), a folder that every node sees for slurm. `data_dir`, which holds
    tasks, goes along. Raises UserError for an unknown engine and for what is no bucket, and ServiceAway where rows
    could not be read: a cell is named by them, and its card chosen by their lengths."""
    if engine not in ENGINES:
        raise UserError(f"There is no engine {engine!r} to write for: {' or '.join(ENGINES)}.")
    if engine == "sky" and not _BUCKET.fullmatch(store):
        raise UserError(
            f"--store {store!r} is no bucket, and rented machines share nothing else. Give the address of one, like "
            "gs://my-study or s3://my-study, or a name for a new one: 3 to 63 lower-case letters, digits and dashes."
        )
    if away := next((cell.wrong for cell in cells if cell.wrong), ""):
        raise ServiceAway(f"{away} Nothing is written: cells are named by their rows.")
    write = _sky if engine == "sky" else _slurm
    return write(matrix, cells, store, out, data_dir)


def _sky(matrix: Path, cells: Sequence[Asked], store: str, out: Path, data_dir: Path | None) -> list[Path]:
    """One task a model: its cells share a download. The cards are those on which all of them train."""
    files = []
    for model in dict.fromkeys(cell.model for cell in cells if cell.served is None):
        own = [cell for cell in cells if cell.model == model]
        cards = fitting_cards(own, (GPUS[name] for name in SKY_NAMES))
        if not cards:
            raise UserError(
                f"No card that SkyPilot can rent holds every cell of {model}. `slimtune sweep plan` says why."
            )
        short = _NOT_IN_A_NAME.sub("-", model.lower()).strip("-")
        text = _template("sky.yaml.j2").render(
            name=f"slimtune-{short}",
            cards=[SKY_NAMES[card.name] for card in _smallest(cards)],
            matrix=matrix,
            file=matrix.name,
            model=shlex.quote(model),
            store=store,
            data=data_dir.resolve() if data_dir else None,
            version=__version__,
        )
        path = out / f"{short}.yaml"
        write_text(path, text)
        files.append(path)
    return files


def _smallest(cards: Sequence[GpuSpec]) -> list[GpuSpec]:
    """Up to four, the smallest first: the engine picks among them by price and by what is free. Of one kind of
    arithmetic, bf16 where there is a choice: scores of fp16 and bf16 are not of one study."""
    cards = [card for card in cards if card.bf16] or cards
    return sorted(cards, key=lambda card: (card.half_tflops, card.total_gib))[:4]


def _slurm(matrix: Path, cells: Sequence[Asked], store: str, out: Path, data_dir: Path | None) -> list[Path]:
    """One array over the cells, and the list that its tasks look their cell up in."""
    listed = out / f"{matrix.stem}.cells"
    script = out / f"{matrix.stem}.sbatch"
    write_text(listed, "".join(f"{cell.id} {cell.contestant} on {cell.task}, seed {cell.seed}\n" for cell in cells))
    text = _template("slurm.sbatch.j2").render(
        name=f"slimtune-{matrix.stem}",
        count=len(cells),
        cells=shlex.quote(str(listed.resolve())),
        matrix=shlex.quote(str(matrix.resolve())),
        store=shlex.quote(str(Path(store).resolve())),
        data=shlex.quote(str(data_dir.resolve())) if data_dir else None,
    )
    write_text(script, text)
    return [script, listed]


def _template(name: str) -> Any:
    text = (importlib.resources.files("slimtune.sweep") / "templates" / name).read_text(encoding="utf-8")
    return jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True).from_string(text)
