"""A checkpoint is whole or absent: killed, or refused by the disk, at every system call of writing one; and damage."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from children import STRACE_CALLS

from slimtune.engine.checkpoint import checkpoints, newest_whole, write_checkpoint
from slimtune.errors import CannotWrite
from slimtune.files import MANIFEST, damage

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
NAMES = ("adapter_model.safetensors", "optimizer.pt", "deeper/rng_state.pth")
WRITE = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from slimtune.engine.checkpoint import write_checkpoint
from slimtune.errors import SlimtuneError

def fill(out):
    (out / "deeper").mkdir()
    for name in {NAMES!r}:
        (out / name).write_bytes(b"3" * 5000)

def mark(name):
    try:
        os.rmdir(name)
    except OSError:
        pass

mark("begin")
try:
    write_checkpoint(Path(sys.argv[1]), int(sys.argv[2]), fill, keep=2)
except SlimtuneError as error:
    sys.stderr.write(str(error))
    sys.exit(error.exit_code)
finally:
    mark("end")
"""


def filled(step: int) -> Callable[[Path], None]:
    def fill(out: Path) -> None:
        (out / "deeper").mkdir()
        for name in NAMES:
            (out / name).write_bytes(str(step).encode() * 5000)

    return fill


def begun(folder: Path, *steps: int) -> Path:
    for step in steps:
        write_checkpoint(folder, step, filled(step), keep=9)
    return folder


def traced(folder: Path, step: int, log: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Write the checkpoint of `step` in a process of its own, under strace."""
    command = ["strace", "-qq", "-o", log, "-e", f"trace={STRACE_CALLS}", *options, sys.executable, "-c", WRITE]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*command, folder, str(step)], capture_output=True, text=True, env=environment, timeout=60)
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
    return done


def calls_of_a_write(tmp_path: Path, *, steps: tuple[int, ...], step: int) -> list[tuple[str, int, str]]:
    """(system call, its number among calls of that name, the line) of all that happens between begin and end."""
    assert traced(begun(tmp_path / "plain", *steps), step, tmp_path / "plain.log").returncode == 0
    lines = (tmp_path / "plain.log").read_text().splitlines()
    first, last = (next(n for n, line in enumerate(lines) if word in line) for word in ('"begin"', '"end"'))
    seen, found = Counter(), []
    for number, line in enumerate(lines):
        name = re.match(r"[a-z0-9]+", line)[0]
        seen[name] += 1
        if first < number < last:
            found.append((name, seen[name], line))
    return found


def content(checkpoint: Path) -> set[bytes]:
    return {(checkpoint / name).read_bytes()[:1] for name in NAMES}


def assert_old_or_new_and_goes_on(folder: Path, where: str, *, old: int, new: int) -> int:
    """What must hold after any interruption. The step that is found."""
    for path in checkpoints(folder):
        assert damage(path) is None, f"{where}: {path.name} is seen half-written"
    newest, notes = newest_whole(folder)
    assert newest is not None and notes == [], where
    assert newest.name in (f"step-{old:08d}", f"step-{new:08d}"), where
    found = int(newest.name[-1])
    assert content(newest) <= {str(old).encode(), str(new).encode()} and len(content(newest)) == 1, where
    write_checkpoint(folder, new, filled(new), keep=2)
    assert content(newest_whole(folder)[0]) == {str(new).encode()}, where
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == [], where
    return found


@needs_strace
@pytest.mark.parametrize(("steps", "step"), [((1, 2), 3), ((2, 3), 3)], ids=["the next step", "a step written before"])
def test_killed_at_every_system_call_the_old_or_the_new_checkpoint_stands(tmp_path: Path, steps, step) -> None:
    def kill_at(call: tuple[str, int, str]) -> int:
        name, number, line = call
        folder = begun(tmp_path / f"{name}-{number}", *steps)
        done = traced(folder, step, tmp_path / f"{name}-{number}.log", "-e", f"inject={name}:signal=KILL:when={number}")
        assert done.returncode in (-9, 137), f"{line}: was not killed, {done.returncode}"
        return assert_old_or_new_and_goes_on(folder, line, old=2, new=3)

    calls = calls_of_a_write(tmp_path, steps=steps, step=step)
    with ThreadPoolExecutor(2) as pool:
        found = Counter(pool.map(kill_at, calls))
    assert len(calls) > 30 and found[2] and found[3]


@needs_strace
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_refused_by_the_disk_at_any_system_call_it_says_so_and_the_old_checkpoint_stands(tmp_path: Path, error) -> None:
    def refuse(call: tuple[str, int, str]) -> tuple[str, int]:
        name, number, line = call
        folder = begun(tmp_path / f"{name}-{number}", 1, 2)
        done = traced(folder, 3, tmp_path / f"{name}-{number}.log", "-e", f"inject={name}:error={error}:when={number}")
        assert done.returncode in (0, 73), f"{line}: {done.stderr}"
        if done.returncode == 73:
            assert "Traceback" not in done.stderr and str(folder) in done.stderr
        found = assert_old_or_new_and_goes_on(folder, line, old=2, new=3)
        assert done.returncode == 73 or found == 3, f"{line}: lost in silence"
        return name, done.returncode

    found = Counter()
    with ThreadPoolExecutor(2) as pool:
        found.update(pool.map(refuse, calls_of_a_write(tmp_path, steps=(1, 2), step=3)))
    assert found["write", 0] == found["fsync", 0] == found["rename", 0] == 0
    assert found["write", 73] >= 4 and found["fsync", 73] >= 5


@needs_strace
def test_every_file_and_folder_is_on_the_disk_before_it_gets_its_name(tmp_path: Path) -> None:
    lines = [line for _, _, line in calls_of_a_write(tmp_path, steps=(1, 2), step=3)]
    published = next(n for n, line in enumerate(lines) if line.startswith("rename") and '/step-00000003")' in line)
    synced = [lines[n - 1] for n, line in enumerate(lines) if line.startswith("fsync") and n < published]
    for name in NAMES:
        assert any(f'{name}"' in line for line in synced), f"{name} is not synced"
    for folder in ('.tmp"', '.tmp/deeper"'):
        assert any(folder in line for line in synced), f"{folder} is not synced"
    assert sum(line.startswith("fsync") for line in lines[published:]) >= 1, "the rename itself is not synced"


def truncate_to_nothing(file: Path) -> None:
    file.write_bytes(b"")


def truncate_to_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize("harm", [truncate_to_nothing, truncate_to_half, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("name", [*NAMES, MANIFEST])
def test_a_damaged_checkpoint_is_named_and_set_aside_and_the_one_before_is_used(tmp_path: Path, harm, name) -> None:
    folder = begun(tmp_path, 1, 2, 3)
    harm(folder / "step-00000003" / name)
    harmed = sorted((folder / "step-00000003").rglob("*"))
    newest, notes = newest_whole(folder)
    assert newest == folder / "step-00000002"
    assert len(notes) == 1 and (name in notes[0] or name == MANIFEST) and "damaged-step-00000003" in notes[0]
    assert len(sorted((folder / "damaged-step-00000003").rglob("*"))) == len(harmed)


def test_two_damaged_checkpoints_of_one_step_are_both_kept(tmp_path: Path) -> None:
    for _ in range(2):
        begun(tmp_path, 1, 2)
        flip_a_bit(tmp_path / "step-00000002" / NAMES[0])
        assert newest_whole(tmp_path)[0].name == "step-00000001"
    assert len({*tmp_path.glob("damaged-step-00000002*")}) == 2


def test_where_all_are_damaged_there_is_none(tmp_path: Path) -> None:
    begun(tmp_path, 1, 2)
    for path in checkpoints(tmp_path):
        (path / MANIFEST).unlink()
    newest, notes = newest_whole(tmp_path)
    assert newest is None and len(notes) == 2 and newest_whole(tmp_path / "nowhere") == (None, [])


def test_a_file_that_nobody_vouches_for_is_damage_and_another_programs_hidden_file_is_not(tmp_path: Path) -> None:
    begun(tmp_path, 1, 2)
    (tmp_path / "step-00000002" / ".DS_Store").write_bytes(b"finder")
    assert newest_whole(tmp_path)[0].name == "step-00000002"
    (tmp_path / "step-00000002" / "scaler.pt").write_bytes(b"pickle")
    newest, notes = newest_whole(tmp_path)
    assert newest.name == "step-00000001" and "scaler.pt is not in manifest.json" in notes[0]


@pytest.mark.parametrize("text", ["[]", "null", "3", '{"adapter_model.safetensors": 5}', "{"])
def test_a_manifest_that_is_none_is_damage(tmp_path: Path, text: str) -> None:
    begun(tmp_path, 1, 2)
    (tmp_path / "step-00000002" / MANIFEST).write_text(text)
    assert newest_whole(tmp_path)[0].name == "step-00000001"


def test_the_clock_does_not_decide_which_is_newest_or_which_goes(tmp_path: Path) -> None:
    for step in range(1, 5):
        begun(tmp_path, step)
        os.utime(tmp_path / f"step-{step:08d}", (2e9 - step, 2e9 - step))
    assert newest_whole(tmp_path)[0].name == "step-00000004"
    write_checkpoint(tmp_path, 5, filled(5), keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000004", "step-00000005"]


def test_what_fails_while_it_is_filled_leaves_no_trace(tmp_path: Path) -> None:
    begun(tmp_path, 1)

    def fail(out: Path) -> None:
        (out / "half").write_bytes(b"x")
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        write_checkpoint(tmp_path, 2, fail, keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_an_error_of_the_system_is_found_inside_a_librarys_own(tmp_path: Path) -> None:
    def full(out: Path) -> None:
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(CannotWrite, match=r"No space left on device. [\d.]+ GiB are free"):
        write_checkpoint(tmp_path, 1, full, keep=2)
