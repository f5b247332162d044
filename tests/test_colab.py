"""The notebooks of colab/: each tells its story in a few cells, and runs to its table; here on a tiny model, off Colab.

A notebook is executed in a kernel of this Python with `slimtune` of this environment. The cell tagged `parameters` is
replaced by smaller ones, and the cells tagged `colab-only` (install, Drive, download) are left out: what they say is
checked, and Drive's cell is run on a stand-in.
"""

import ast
import errno
import fcntl
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import tomllib
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from children import Nursery, until
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from slimtune.files import cache_folder
from slimtune.forecast import Asked, plan_one
from slimtune.gpus import get_gpu
from slimtune.models import get_model
from slimtune.sweep.matrix import find_matrix, read_matrix
from slimtune.sweep.outlook import fitting_cards

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
SET = "constraints/colab-t4.txt"

pytestmark = pytest.mark.xdist_group("colab")  # in one process: they share what takes long to import

every_notebook = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


def read(file: Path) -> nbformat.NotebookNode:
    return nbformat.read(file, as_version=4)


def code(file: Path, tag: str | None = None) -> list[nbformat.NotebookNode]:
    """The code cells; with a tag, those that have it."""
    cells = [cell for cell in read(file).cells if cell.cell_type == "code"]
    return [cell for cell in cells if tag is None or tag in cell.metadata.get("tags", ())]


def named(file: Path, name: str) -> str:
    (cell,) = (cell for cell in read(file).cells if cell.id == name)
    return cell.source


def as_python(source: str) -> str:
    """A cell with IPython's own syntax turned into calls."""
    return TransformerManager().transform_cell(source)


def parameters(file: Path) -> dict[str, Any]:
    (cell,) = code(file, "parameters")
    values: dict[str, Any] = {}
    exec(cell.source, values)
    del values["__builtins__"]
    return values


# what stands in them


def test_there_are_the_six_stories() -> None:
    assert [file.stem for file in NOTEBOOKS] == [
        "01_first_finetune_t4",
        "02_which_model_fits_my_task",
        "03_tool_calling",
        "04_long_context_yarn",
        "05_your_own_data",
        "06_benchmark_overnight",
    ]


@every_notebook
def test_a_notebook_is_short_valid_and_without_outputs(file: Path) -> None:
    text, book = file.read_text(encoding="utf-8"), read(file)
    nbformat.validate(book)
    assert len(book.cells) <= 12 and [cell.cell_type for cell in book.cells[:2]] == ["markdown", "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code(file))
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"
    assert book.metadata == {
        "accelerator": "GPU",
        "colab": {"gpuType": "T4"},
        "kernelspec": {"display_name": "Python 3", "name": "python3"},
        "language_info": {"name": "python"},
    }


@every_notebook
def test_the_badge_opens_this_very_file(file: Path) -> None:
    links = re.findall(r"\]\((https://colab[^)]*\.ipynb)\)", read(file).cells[0].source)
    path = REPOSITORY.removeprefix("https://github.com/")
    assert links == [f"https://colab.research.google.com/github/{path}/blob/main/colab/{file.name}"]


@every_notebook
def test_the_set_is_installed_first_and_said_once(file: Path) -> None:
    first, text = code(file)[0], "\n".join(cell.source for cell in read(file).cells)
    assert first.id == "install" and first.source == named(NOTEBOOKS[0], "install")
    assert f"git clone --quiet --depth 1 {REPOSITORY} repository" in first.source
    assert f"pip install --quiet --no-deps -r repository/{SET}" in first.source and (ROOT / SET).is_file()
    assert re.search(r"==\s*\d+\.", text) is None, f"versions stand in {SET} alone"
    pins = [line.partition("==")[0] for line in (ROOT / SET).read_text().splitlines() if line[:1] != "#"]
    assert {"unsloth", "transformers", "trl", "peft"} <= {*pins} and not any(pin.startswith("torch") for pin in pins)
    assert "torch" not in re.sub("#.*", "", first.source), "Colab's own torch stays"


@every_notebook
def test_the_story_comes_in_order(file: Path) -> None:
    names = [cell.id for cell in read(file).cells]
    order = ["story", "install", "kept", "parameters", "mount", "run", "table", "download"]
    assert [name for name in names if name in order] == order
    assert [cell.id for cell in code(file, "colab-only")] == ["install", "mount", "download"]
    for same in ("kept", "mount"):
        assert named(file, same) == named(NOTEBOOKS[0], same)
    assert parameters(file)["STORE"].startswith("/content/drive/MyDrive/")
    assert "timeout --foreground --preserve-status --signal=TERM {LIMIT}" in named(file, "run")
    assert "files.download" in named(file, "download")


@every_notebook
def test_every_cell_is_python_and_uses_public_names(file: Path) -> None:
    for cell in code(file):
        tree = ast.parse(as_python(cell.source))
        for node in ast.walk(tree):
            names = [alias.name for alias in getattr(node, "names", ())] if isinstance(node, ast.ImportFrom) else []
            if names and node.module.split(".")[0] == "slimtune":
                module = importlib.import_module(node.module)
                assert [name for name in names if name.startswith("_") or not hasattr(module, name)] == []
            assert not (isinstance(node, ast.Attribute) and node.attr.startswith("_")), f"{cell.id}: {node.attr}"


def test_they_are_as_the_linter_has_them() -> None:
    for check in (["check"], ["format", "--check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *check, "colab"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@every_notebook
def test_what_it_trains_is_planned_to_fit_a_t4(file: Path) -> None:
    given, asked = parameters(file), Asked(gpu="t4")
    if "MATRIX" in given:
        cells = read_matrix(find_matrix(given["MATRIX"]))
        assert fitting_cards(cells, [get_gpu("t4")])
        return
    if "LENGTH" in given:
        assert get_model(given["MODEL"]).native_context < given["LENGTH"]
        asked = Asked(gpu="t4", context=str(given["LENGTH"]))
    changes = tuple(given.get("CHANGES", "").split()[1::2])
    for model in given.get("CANDIDATES", ()):
        assert plan_one(given["RECIPE"], Asked(gpu="t4", overrides=(*changes, f"model={model}"))).plan
    assert plan_one(given.get("RECIPE", given.get("MODEL")), asked).plan


# Drive


def run_mount(monkeypatch: pytest.MonkeyPatch, store: Path) -> str:
    """What STORE is after the cell that mounts Drive, here a folder."""
    package, drive = types.ModuleType("google.colab"), types.SimpleNamespace(mount=lambda path: None)
    package.drive = drive
    monkeypatch.setitem(sys.modules, "google.colab", package)
    values = {"STORE": str(store)}
    exec(named(NOTEBOOKS[0], "mount"), values)
    return values["STORE"]


def test_drive_keeps_runs_where_it_takes_a_lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for _ in range(2):  # the second session finds what the first one left
        assert run_mount(monkeypatch, tmp_path / "drive") == str(tmp_path / "drive")


@pytest.mark.parametrize("refusal", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EIO])
def test_without_a_lock_runs_stay_on_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture, refusal: int
) -> None:
    def refused(*_: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(fcntl, "flock", refused)
    assert run_mount(monkeypatch, tmp_path / "drive") == "/content/runs"
    assert os.strerror(refusal) in capsys.readouterr().out


# and they run


@pytest.fixture(scope="module")
def tiny(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model twice, with room for the long prompts of tools."""
    folder = tmp_path_factory.mktemp("candidates")
    for name in ("one", "other"):
        shutil.copytree(tiny_model, folder / name)
        config = json.loads((folder / name / "config.json").read_text())
        (folder / name / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    return folder


SLIMTUNE = """#!{python} -IS
import json, os, signal, socket, sys
if sys.argv[1] not in ("run", "check"):
    os.execv({real!r}, sys.argv)
asked = socket.socket(socket.AF_UNIX)
asked.connect({address!r})
answers = asked.makefile("rw")
print(json.dumps([os.getcwd(), *sys.argv[1:]]), file=answers, flush=True)
pid = int(answers.readline())
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: os.kill(pid, number))
code, said = json.loads(answers.readline())
print(said, end="", flush=True)
sys.exit(code)
"""


class Shell:
    """A folder for PATH with a `slimtune` that need not import the training libraries each time: `run` and `check` are
    children of a process that has (children.py); everything else is the command of this environment."""

    def __init__(self, folder: Path, address: Path):
        self.folder, self.nursery, self.socket = folder, Nursery(), socket.socket(socket.AF_UNIX)
        self.socket.bind(str(address))
        self.socket.listen()
        real = str(Path(sys.executable).with_name("slimtune"))
        command = folder / "slimtune"
        command.write_text(SLIMTUNE.format(python=sys.executable, real=real, address=str(address)))
        command.chmod(0o755)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            asked, _ = self.socket.accept()
            threading.Thread(target=self._answer, args=(asked,), daemon=True).start()

    def _answer(self, asked: socket.socket) -> None:
        with asked, asked.makefile("rw") as answers:
            place, *argv = json.loads(answers.readline())
            child = self.nursery.start(Path(place), *argv, cache=cache_folder())
            print(child.pid, file=answers, flush=True)
            print(json.dumps([child.wait(), child.said]), file=answers, flush=True)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with tempfile.TemporaryDirectory() as short:  # as a socket's path has to be
        shell = Shell(tmp_path_factory.mktemp("bin"), Path(short) / "shell")
        yield shell
        shell.nursery.close()


class Reader:
    """Somebody who executes a notebook cell by cell, in a folder of their own."""

    def __init__(self, file: Path, folder: Path, shell: Shell, **given: Any):
        self.book, self.store = read(file), folder / "drive"
        values = {"STORE": str(self.store), "NAME": "smoke", "LIMIT": "10m", **given}
        self.given = "\n".join(f"{name} = {value!r}" for name, value in values.items())
        spec = folder / "kernels" / "here" / "kernel.json"
        spec.parent.mkdir(parents=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec.write_text(json.dumps({"argv": argv, "display_name": "here", "language": "python"}))
        kernels = KernelSpecManager(kernel_dirs=[str(folder / "kernels")])
        kernel = AsyncKernelManager(kernel_name="here", kernel_spec_manager=kernels)
        where = {"metadata": {"path": str(folder)}}
        self.client = NotebookClient(self.book, km=kernel, timeout=300, resources=where)
        self.environment = {
            **os.environ,
            "PATH": f"{shell.folder}{os.pathsep}{os.environ['PATH']}",
            "SHELL": shutil.which("bash"),
            "IPYTHONDIR": str(folder / "ipython"),
        }

    def __enter__(self) -> "Reader":
        self.kernel = self.client.setup_kernel(env=self.environment, cleanup_kc=True)
        self.kernel.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.kernel.__exit__(*error)

    def cells(self) -> Iterator[str]:
        """Execute the cells in order, and give the name of each. One that fails raises what it failed with."""
        for cell in self.book.cells:
            tags = cell.metadata.get("tags", ())
            if cell.cell_type == "code" and "colab-only" not in tags:
                cell.source = self.given if "parameters" in tags else cell.source
                self.execute(cell.id)
                yield cell.id

    def execute(self, name: str) -> str:
        index = next(index for index, cell in enumerate(self.book.cells) if cell.id == name)
        self.client.execute_cell(self.book.cells[index], index)
        return self.said(name)

    def said(self, name: str) -> str:
        """What a cell shows, as text."""
        (cell,) = (cell for cell in self.book.cells if cell.id == name)
        return "\n".join(output.get("text") or output.data["text/plain"] for output in cell.outputs)

    @property
    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.client.km.provisioner.pid).children(recursive=True)


def trained(run: Path) -> dict[str, Any]:
    """The report of a run that is complete."""
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert report["training"]["steps"] >= 1 and report["missing"] == [] and (run / "adapter").is_dir()
    assert {"base", "tuned"} <= {row["name"] for row in report["scores"]}
    return report


def time_is_up(reader: Reader, run: Path) -> None:
    """Once a run is at work: what its `timeout` does when the time is up."""
    until(lambda: (run / "status.json").is_file())
    (clock,) = (process for process in reader.processes if process.name() == "timeout")
    clock.send_signal(signal.SIGALRM)


SMALL = "--set evaluate.few_shot=0 --set evaluate.max_new_tokens=4 --set lora.r=4 --set train.epochs=1"
CUT = f"{SMALL} --set data.train_rows=8 --set data.test_rows=8 --set data.labels=[age_limit,atm_support,change_pin]"


def test_a_command_that_fails_fails_its_cell(tmp_path: Path, shell: Shell) -> None:
    with Reader(NOTEBOOKS[0], tmp_path, shell, RECIPE="smollm2-banking77", CHANGES="--set train.epoch=1") as reader:
        cells = reader.cells()
        assert next(cells) == "parameters"
        with pytest.raises(CellExecutionError, match=r"Did you mean 'train\.epochs'"):
            next(cells)


def test_01_a_run_that_is_stopped_in_time_goes_on(tmp_path: Path, tiny: Path, shell: Shell) -> None:
    given = {"RECIPE": "smollm2-banking77", "CHANGES": f"{CUT} --set model={tiny / 'one'} --set train.batch=2"}
    with Reader(NOTEBOOKS[0], tmp_path, shell, **given) as reader:
        cells, run = reader.cells(), reader.store / "smoke"
        assert [next(cells), next(cells)] == ["parameters", "plan"]
        assert "Ready to run" in reader.said("plan")
        with ThreadPoolExecutor() as beside:
            stopped = beside.submit(time_is_up, reader, run)
            assert next(cells) == "run"
            stopped.result()
        assert "Run this cell again" in reader.said("run") and not (run / "report.html").exists()
        assert "Run this cell again" not in reader.execute("run")
        assert [*cells] == ["table", "answers"]
        report = trained(run)
        assert report["verdict"] in reader.said("table") and "base, zero-shot" in reader.said("table")


def test_02_too_few_rows_to_tell_two_candidates_apart_are_called_so(tmp_path: Path, tiny: Path, shell: Shell) -> None:
    candidates = (str(tiny / "one"), str(tiny / "other"))
    given = {"RECIPE": "smollm2-banking77", "CANDIDATES": candidates, "CHANGES": CUT}
    with Reader(NOTEBOOKS[1], tmp_path, shell, **given) as reader:
        assert [*reader.cells()][-1] == "compare"
        for name in ("one", "other"):
            assert trained(reader.store / f"candidate-{name}")["verdict"] in reader.said("table")
        assert "smollm2-360m-instruct" in reader.said("plan") and "hours, if slow" in reader.said("plan")
        assert "These rows cannot tell them apart" in reader.said("compare")


def test_03_intervals_of_tool_calls_are_over_conversations(tmp_path: Path, tiny: Path, shell: Shell) -> None:
    rows = "--set data.train_rows=4 --set data.test_rows=6 --set context=4096 --set seed=1"
    given = {"RECIPE": "qwen3-1.7b-voice-banking", "CHANGES": f"{SMALL} {rows} --set model={tiny / 'one'}"}
    with Reader(NOTEBOOKS[2], tmp_path, shell, **given) as reader:
        assert [*reader.cells()][-1] == "answers"
        assert "that: 1" in reader.said("task") and "it twice: 0" in reader.said("task")
        report = trained(reader.store / "smoke")
        assert report["scores"][0]["score"]["groups"] < report["scores"][0]["n"] == 6
        assert report["verdict"] in reader.said("table") and "conversations" in reader.said("table")


def test_04_needles_are_looked_for_before_and_after(tmp_path: Path, shell: Shell) -> None:
    changes = f"{CUT} --set task=banking77 --set data.test_rows=2"
    given = {"MODEL": "smollm2-135m-embedded", "LENGTH": 384, "NEEDLES": 1, "CHANGES": changes}
    with Reader(NOTEBOOKS[3], tmp_path, shell, **given) as reader:
        assert [*reader.cells()][-1] == "serve"
        assert "YaRN stretches it" in reader.said("refusals") and "cannot be stretched" in reader.said("refusals")
        report = trained(reader.store / "smoke")
        assert [row["name"] for row in report["needles"]] == ["needle-long-base", "needle-long-tuned"]
        assert report["verdict"] in reader.said("table") and "by depth" in reader.said("table")
        assert "--rope-scaling yarn" in reader.said("serve")


def test_05_a_csv_becomes_a_model_and_its_mistakes_are_shown(tmp_path: Path, tiny: Path, shell: Shell) -> None:
    with Reader(NOTEBOOKS[4], tmp_path, shell, MODEL=str(tiny / "one"), CHANGES=SMALL) as reader:
        assert [*reader.cells()][-1] == "mistakes"
        assert "64 training rows, 16 test rows" in reader.said("data")
        report = trained(reader.store / "smoke")
        assert report["scores"][0]["score"]["groups"] == 8, "sentences"
        assert report["verdict"] in reader.said("table") and "of 16 test rows" in reader.said("mistakes")


MATRIX = """base:
  train: {epochs: 1, batch: 8}
  evaluate: {few_shot: 0, max_new_tokens: 4}
  data: {train_rows: 8, test_rows: 8, labels: [age_limit, atm_support, change_pin]}
models: [MODEL]
contestants: {rank 2: {lora.r: 2}, rank 4: {lora.r: 4}}
tasks: [banking77]
"""


def test_06_a_study_is_run_ranked_and_gone_on_with(tmp_path: Path, tiny: Path, shell: Shell) -> None:
    matrix = tmp_path / "small.yaml"
    matrix.write_text(MATRIX.replace("MODEL", str(tiny / "one")))
    with Reader(NOTEBOOKS[5], tmp_path, shell, MATRIX=str(matrix)) as reader:
        assert [*reader.cells()] == ["parameters", "plan", "run", "table", "advice"]
        assert "cells to train" in reader.said("plan") and "Exit code 0." in reader.said("run")
        assert "Fine-tuned" in reader.said("table") and "rank 4" in reader.said("table")
        assert "Take " in reader.said("advice") and "rank 4" in reader.said("advice")
        results = [*(reader.store / "studies" / "small").glob("cells/*/result.json")]
        before = [file.stat().st_mtime_ns for file in results]
        assert "Exit code 0." in reader.execute("run"), "the next session"
        assert len(before) == 2 and before == [file.stat().st_mtime_ns for file in results]
