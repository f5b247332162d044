"""A file or folder is whole or not there, whoever kills, fills or shares the disk."""

import errno
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slimtune.errors import CannotWrite
from slimtune.files import (
    DISK_GONE,
    append_line,
    damage,
    digest_json,
    publish_folder,
    read_json,
    read_log,
    remove_folder,
    sweep,
    write_bytes,
    write_json,
    write_text,
    writing,
)


def hidden(folder: Path) -> list[Path]:
    return list(folder.rglob(".*"))


def one_file(text: str):
    return lambda out: (out / "a.txt").write_text(text)


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"ü": 1})
    write_json(path, {"ü": 2})
    assert read_json(path) == {"ü": 2} and "ü".encode() in path.read_bytes() and hidden(tmp_path) == []


def test_what_is_not_json_is_refused_and_the_old_file_stands(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json") == 1


def publish_text(path: Path, text: str) -> None:
    publish_folder(path, one_file(text))


@pytest.mark.parametrize("write", [write_text, append_line, publish_text])
def test_a_path_under_a_file_cannot_be_written_and_says_what_helps(tmp_path: Path, write) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        CannotWrite, match=r"Cannot write .*below: (Not a directory|File exists)\. Choose another --out\."
    ) as caught:
        write(tmp_path / "file" / "below", "text")
    assert caught.value.exit_code == 73


def test_in_the_cache_the_advice_is_another_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIMTUNE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "scores").write_text("a file where a folder should be")
    with pytest.raises(CannotWrite, match=r"Set SLIMTUNE_CACHE to another folder\."):
        publish_folder(tmp_path / "cache" / "scores" / "entry", one_file("x"))


def test_a_file_larger_than_the_process_may_write_is_cannot_write_and_the_old_one_stands(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from slimtune.files import write_bytes\n"
        "from slimtune.errors import CannotWrite\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    write_bytes(Path(sys.argv[1]), bytes(5000))\n"
        "except CannotWrite as error:\n    print(error)\n"
    )
    write_text(tmp_path / "a", "old")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a"], capture_output=True, text=True, timeout=60)
    assert "File too large" in done.stdout and (tmp_path / "a").read_text() == "old" and hidden(tmp_path) == []


def test_only_what_a_disk_or_path_refuses_is_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, writing(tmp_path / "a"):
        raise OSError(errno.EBADF, "ours")
    assert not isinstance(caught.value, CannotWrite) and caught.value.__cause__ is None
    with pytest.raises(CannotWrite, match="not connected"), writing(tmp_path / "a", only=DISK_GONE):
        raise OSError(errno.ENOTCONN, "a drive that went away")
    with pytest.raises(PermissionError), writing(tmp_path / "a", only=DISK_GONE):
        raise PermissionError(errno.EACCES, "reading something else")


def test_a_torn_last_line_is_cut_off_before_the_next_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append_line(log, '{"n": 1}')
    append_line(log, '{"n": 2}')
    whole = log.read_bytes()
    for cut in range(len(whole) + 1):
        log.write_bytes(whole[:cut])
        before = read_log(log)
        append_line(log, '{"n": 3}')
        assert read_log(log) == [*before, {"n": 3}], whole[:cut]
        assert all(json.loads(line) for line in log.read_text().splitlines())


def test_what_power_left_of_a_log_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b'{"n": 1}\n' + bytes(40) + b'\n{"n": 2}\n{"n": \xff}\n17\n{"n": 3}')
    assert read_log(tmp_path / "log") == [{"n": 1}, {"n": 2}]


def test_a_published_folder_replaces_another_whole(tmp_path: Path) -> None:
    publish_folder(tmp_path / "out", one_file("old"))
    (tmp_path / "out" / "extra").write_text("of the old one")
    publish_folder(tmp_path / "out", one_file("new"))
    assert damage(tmp_path / "out") is None and (tmp_path / "out" / "a.txt").read_text() == "new"
    assert not (tmp_path / "out" / "extra").exists() and hidden(tmp_path) == []


def test_many_may_publish_one_folder_at_once(tmp_path: Path) -> None:
    """Runs that share a cache: each must see a whole folder, and none may fail."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom slimtune.files import damage, publish_folder\n"
        "path = Path(sys.argv[1])\n"
        "for n in range(250):\n"
        "    publish_folder(path, lambda out: (out / 'a.txt').write_text(sys.argv[2] * 1000))\n"
    )

    def publish(name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, tmp_path / "out", name]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    with ThreadPoolExecutor(4) as pool:
        done = [*pool.map(publish, "abcd")]
    assert [one.returncode for one in done] == [0] * 4, done[0].stderr + done[1].stderr
    assert damage(tmp_path / "out") is None and len(set((tmp_path / "out" / "a.txt").read_text())) == 1


def test_what_killed_processes_left_is_swept_and_what_lives_is_not(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = os.uname().nodename
    for name in (f".out.{host}-{dead.pid}.tmp", f".out.{host}-{os.getppid()}.tmp", f".out.elsewhere-{dead.pid}.tmp"):
        (tmp_path / name).mkdir()
    publish_folder(tmp_path / "out", one_file("x"))
    assert sorted(path.name for path in hidden(tmp_path)) == [
        f".out.elsewhere-{dead.pid}.tmp",
        f".out.{host}-{os.getppid()}.tmp",
    ]
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / f".a.png.{host}-{dead.pid}.tmp").write_text("half")
    sweep(tmp_path)
    assert hidden(tmp_path) == [] and (tmp_path / "out").exists()


def test_a_removed_folder_goes_whole(tmp_path: Path) -> None:
    publish_folder(tmp_path / "out", one_file("x"))
    remove_folder(tmp_path / "out")
    assert [*tmp_path.iterdir()] == []
    with pytest.raises(FileNotFoundError):
        remove_folder(tmp_path / "out")


def test_a_digest_of_json_knows_values_and_not_their_order() -> None:
    assert digest_json({"a": 1, "b": [2]}) == digest_json({"b": [2], "a": 1}) != digest_json({"a": 1, "b": [3]})


def test_bytes_are_on_the_disk_in_one_piece(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    write_bytes(tmp_path / "a", data)
    assert (tmp_path / "a").read_bytes() == data
