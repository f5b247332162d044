"""The Results tab: one run's report, every answer behind it, and its files."""

import tempfile
import zipfile
from pathlib import Path
from typing import Any

import gradio as gr

from slimtune import jobs
from slimtune.app import answers_view
from slimtune.app.look import sentence
from slimtune.errors import SlimtuneError
from slimtune.files import read_json
from slimtune.report import report_fragment

_COPIES = tempfile.TemporaryDirectory(prefix="slimtune-app-")  # removed when the app ends
_NONE = "No finished run yet. The Plan tab starts one."


def build(tab: gr.Tab) -> None:
    """The tab on the page."""
    with gr.Row(elem_classes="slim-controls"):
        chosen = gr.Dropdown([], label="Run", scale=4, min_width=260, elem_id="result", filterable=True)
        page = gr.DownloadButton("Report", scale=1, min_width=120, elem_id="download-report", interactive=False)
        adapter = gr.DownloadButton("Adapter", scale=1, min_width=120, elem_id="download-adapter", interactive=False)
    label = answers_view.build(chosen, _folder, prefix="", none=_NONE)
    report = gr.HTML(elem_classes="slim-report", elem_id="report")
    gr.on([tab.select], _choices, chosen, chosen, show_progress="hidden", api_name=False)
    chosen.change(_show, chosen, [report, label, page, adapter], show_progress="minimal", api_name=False)


def _folder(name: str | None) -> Path | None:
    return jobs.find_run(name) if name else None


def reported() -> list[str]:
    """The names of runs that have a report, newest first."""
    return [state.name for state in jobs.list_runs() if (state.folder / "report.html").is_file()]


def _choices(name: str | None) -> Any:
    names = reported()
    return gr.update(choices=names, value=name if name in names else next(iter(names), None))


def _show(name: str | None) -> tuple[Any, ...]:
    off = gr.update(interactive=False)
    try:
        if not name:
            return sentence(_NONE), gr.update(), off, off
        folder = jobs.find_run(name)
        whole = [gr.update(value=str(file), interactive=True) if file else off for file in _files(folder)]
        return report_fragment(folder), answers_view.label_choices(folder), *whole
    except SlimtuneError as error:
        return sentence(str(error), "bad"), gr.update(), off, off


def _files(folder: Path) -> tuple[Path | None, Path | None]:
    """Copies to be downloaded, made once while the app runs: the page, and the adapter in a zip file; None where there
    is none."""
    page, adapter = folder / "report.html", folder / "adapter"
    trained = read_json(folder / "training.json")["adapter_sha256"][:8] if adapter.is_dir() else ""
    copies = Path(_COPIES.name) / f"{folder.name}.html", Path(_COPIES.name) / f"{folder.name}-{trained}.zip"
    if page.is_file():
        copies[0].write_bytes(page.read_bytes())
    if adapter.is_dir() and not copies[1].is_file():
        with zipfile.ZipFile(copies[1], "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(adapter.rglob("*")):
                if file.is_file() and not file.is_symlink():
                    archive.write(file, file.relative_to(folder))
    return tuple(file if file.is_file() else None for file in copies)
