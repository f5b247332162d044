"""What the command line shows: progress while it works, tables when it is done. Words of models and data are shown as
text, never as markup."""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from slimtune.check import detectable
from slimtune.errors import SlimtuneError, UserError, did_you_mean
from slimtune.files import read_json
from slimtune.report.compare import disagreements
from slimtune.screen_plan import show_plan, show_ready
from slimtune.wording import counted, weights


class Live:
    """Listens to a run: bars with time left on a terminal, a line a quarter elsewhere."""

    def __init__(self, console: Console):
        # the engine's libraries print; their output goes to the run's log, so the console keeps a stream of its own
        self.console = Console(file=sys.__stdout__) if console.file is sys.stdout else console
        # a notebook's cell is a terminal that shows every frame of a bar on a line of its own
        self._animated = self.console.is_terminal and "COLAB_RELEASE_TAG" not in os.environ
        self._progress = Progress(
            TextColumn("{task.description:<26}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]left[/dim]"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[detail]}[/dim]"),
            console=self.console,
            disable=not self._animated,
        )
        self._tasks: dict[str, Any] = {}
        self._quarters: dict[str, int] = {}
        self._began = time.monotonic()

    def __enter__(self) -> "Live":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._progress.console.print(Text(f"{self._clock()} {text}", style="dim"))

    def progress(self, stage: str, done: int, total: int, detail: str = "") -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, detail=detail)
        self._progress.update(self._tasks[stage], completed=done, total=total, detail=detail)
        quarter = 4 * done // max(total, 1)
        if not self._animated and quarter > self._quarters.get(stage, -1):
            self._quarters[stage] = quarter
            self.console.print(Text(f"{self._clock()} {stage}: {done} of {total} {detail}".rstrip()))

    def _clock(self) -> str:
        seconds = round(time.monotonic() - self._began)
        return f"{seconds // 60:3d}:{seconds % 60:02d}"


def show_start(console: Console) -> None:
    console.print("[bold]slimtune[/bold] fine-tunes a small language model on one GPU, and proves that it helped.\n")
    table = Table.grid(padding=(0, 3))
    for command, gloss in [
        ("slimtune demo", "the whole job in a few minutes, on this machine as it is"),
        ("slimtune doctor", "what this machine has, and what would go wrong"),
        ("slimtune list recipes", "recipes to start from; then: slimtune check RECIPE, slimtune run RECIPE"),
        ("slimtune list tasks", "tasks to try; your own is a folder, or a CSV named in a recipe"),
        ("slimtune --help", "every verb"),
    ]:
        table.add_row(f"[cyan]{command}[/cyan]", gloss)
    console.print(Padding(table, (0, 2)))


def show_title(console: Console, prepared: Any) -> None:
    note = f"\n[yellow]{escape(prepared.spec.note)}[/yellow]" if prepared.spec.note else ""
    console.print(
        Panel.fit(
            f"[bold]{escape(prepared.task.title)}[/bold]\n{escape(prepared.spec.label)}{note}", border_style="cyan"
        )
    )


def show_check(console: Console, prepared: Any, tokens: Any, plan: Any) -> None:
    """What will be trained, and what it takes."""
    show_title(console, prepared)
    task, quality = prepared.task, prepared.quality
    rows = f"{counted(len(task.train), 'training row')}, {counted(len(task.test), task.scored_noun)}"
    console.print(f"{rows}, scored by {task.scorer}.")
    for note in [*task.notes, *quality.warnings, *prepared.recipe.key_notes]:
        console.print(Text(f"  ! {note}", style="yellow"))
    _show_labels(console, quality)
    said = (
        f"Rows that repeat an earlier one: {quality.duplicate_train_rows} for training, {quality.duplicate_test_rows} "
        f"for testing; with another answer: {quality.contrary_train_rows} and {quality.contrary_test_rows}. "
        f"{task.scored_noun.capitalize()}s that are asked in training too: {quality.overlap_normalised}, of them "
        f"leaks: {quality.leaks}."
    )
    console.print(Text(said, style="dim"))
    if isinstance(tokens, str):
        console.print(Text(tokens, style="yellow"))
    else:
        _show_tokens(console, tokens, prepared.recipe.context.length)
    show_plan(console, plan)
    if not isinstance(tokens, str) and tokens.too_long and prepared.recipe.data.long_rows == "error":
        raise UserError(
            f"Training rows longer than the context of {prepared.recipe.context.length}: {tokens.too_long}. Raise "
            "`context`, or set `data.long_rows: drop`."
        )
    show_ready(console, len(task.test), detectable(prepared), noun=task.scored_noun)


def show_json(value: Any) -> None:
    """For a program: one JSON document on standard output, and nothing else there."""
    sys.__stdout__.write(json.dumps(value, ensure_ascii=False) + "\n")


def show_outcome(console: Console, outcome: Any) -> None:
    report = outcome.report
    if outcome.already_done:
        console.print("[green]Already done:[/green] every step of this run is complete. Nothing was computed.")
    console.print()
    console.print(Text(report.title, style="bold"))
    if report.note:
        console.print(Text(report.note, style="yellow"))
    console.print(_scores(report))
    if report.differences:
        console.print(Padding(_differences(report), (1, 0, 0, 0)))
    console.print(Padding(Text(report.verdict.sentence, style="bold"), (1, 0)))
    for line in disagreements(report.differences):
        console.print(Text(line, style="dim"))
    for missing in report.missing:
        console.print(Text(f"Missing: {missing}", style="yellow"))
    _show_what_ran(console, outcome.folder)
    console.print(f"\nReport:  {_link(report.html)}\nAdapter: {_link(outcome.folder / 'adapter')}", soft_wrap=True)


def _show_what_ran(console: Console, folder: Path) -> None:
    ran, training = read_json(folder / "environment.json"), read_json(folder / "training.json")
    versions, memory = ran["versions"], training["peak_gpu_gib"]
    once = " (what prompts share is counted once)" if ran["collation"] == "shared-prefix" else ""
    console.print(
        Text(
            f"What ran: {ran['gpu'] or 'CPU'}, {weights(ran['precision'], ran['quantisation'], gpu=ran['gpu'])}, "
            f"{ran['collation']} batches, {ran['attention']}; LoRA on {sum(ran['adapter_modules'].values())} layers, "
            f"{ran['trainable_parameters'] / 1e6:.1f}M parameters; {training['steps']} steps, "
            f"{training['tokens']:,} tokens{once}, {training['seconds']:.0f} s; loss {training['first_loss']:.2f} to "
            f"{training['last_loss']:.2f}; {'' if memory is None else f'peak {memory:.2f} GiB; '}"
            f"unsloth {versions['unsloth']}, torch {versions['torch']}.",
            style="dim",
        )
    )


def show_evaluation(console: Console, evaluation: Any, folder: Path) -> None:
    from slimtune.report.beside import beside, shares

    summary = evaluation.summary()
    console.print(
        f"[bold]{escape(evaluation.label)}[/bold]: {evaluation.scorer} {evaluation.score}, n = {summary['n']}, "
        + shares(summary)
    )
    for name, interval in beside(summary).items():
        console.print(f"  {name} {interval}")
    console.print(f"Every answer: {_link(folder / 'examples.parquet')}", soft_wrap=True)


def show_app(console: Console, served: Any, *, user: str, variable: str) -> None:
    """Where the app is, and how to get in."""
    console.print(f"The app is at [bold]{served.url}[/bold]  [dim](Ctrl-C closes it; runs go on)[/dim]")
    if served.public_url:
        console.print(f"For others: [bold]{served.public_url}[/bold]")
    if served.password:
        console.print(
            f"User [bold]{user}[/bold], password [bold]{served.password}[/bold]  [dim](made for this time; "
            f"{variable} sets one)[/dim]"
        )


def show_list(console: Console, what: str) -> None:
    """A table of everything of one kind. Raises UserError for a kind that does not exist."""
    from slimtune import listing

    if what not in listing.KINDS:
        raise UserError(f"There is no list of {what!r}. {did_you_mean(what, listing.KINDS)}")
    title, columns, rows = listing.KINDS[what]()
    if not rows:
        console.print(listing.EMPTY)
        return
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if column in listing.NUMBERS else "left", no_wrap=place == 0)
    for row in rows:
        table.add_row(*[escape(str(cell)) for cell in row])
    console.print(table, *(f"[dim]{escape(note)}[/dim]" for note in listing.notes(what)), sep="\n")


def show_findings(console: Console, findings: Sequence[Any]) -> None:
    marks = {"ok": "[green]ok[/green]", "warning": "[yellow]note[/yellow]", "problem": "[red]problem[/red]"}
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        table.add_row(marks[finding.status], escape(finding.name), escape(finding.value))
        if finding.fix:
            table.add_row("", "", f"[cyan]{escape(finding.fix)}[/cyan]")
    console.print(table)


def show_error(console: Console, error: SlimtuneError) -> None:
    style = "yellow" if error.exit_code == 75 else "red"
    console.print(Text(str(error), style=style), soft_wrap=True)


def show_bug(console: Console) -> None:
    console.print(
        "[red]This is a bug in slimtune, not in your recipe.[/red] Please report the lines above with what "
        "`slimtune doctor` prints."
    )


def _show_labels(console: Console, quality: Any) -> None:
    counts = sorted(quality.train_labels.items(), key=lambda item: -item[1])
    if counts:
        shown = counts if len(counts) <= 8 else [*counts[:4], ("...", ""), *counts[-3:]]
        listed = ", ".join(f"{label} {count}".rstrip() for label, count in shown)
        console.print(Text(f"{len(counts)} labels, with their training rows: {listed}.", style="dim"))


def _show_tokens(console: Console, tokens: Any, context: int) -> None:
    console.print("\n[bold]One row as it is trained[/bold] [dim](green: what the loss is on)[/dim]")
    row = Text()
    for text, supervised in tokens.samples[0]:
        row.append(text, style="bold green" if supervised else "dim")
    console.print(Padding(row, (0, 2)))
    console.print(
        f"\n[bold]Row length in tokens[/bold] [dim](context {context}; {tokens.supervised:.1%} of all tokens "
        "are supervised)[/dim]"
    )
    for low, high, count in tokens.histogram():
        bar = "█" * max(1, round(40 * count / len(tokens.lengths))) if count else ""
        style = "red" if low > context else ""
        console.print(Text(f"  {low:>6} to {high:<6} {count:>6} {bar}", style=style))
    style = "red" if tokens.too_long else "green"
    console.print(Text(f"  Rows longer than the context: {tokens.too_long}.", style=style))


def _scores(report: Any) -> Table:
    table = _table("", "score", "95% interval", "n", "unparseable", "cut off", "unjudged")
    for row in report.scores:
        table.add_row(
            escape(row.label),
            f"{row.score.value:.3f}",
            f"{row.score.low:.3f} to {row.score.high:.3f}",
            str(row.n),
            *(f"{share or 0:.0%}" for share in (row.unparseable, row.truncated)),
            str(row.unscored or 0),
        )
    return table


def _differences(report: Any) -> Table:
    tests = {row.comparison.test for row in report.differences}
    table = _table("on the same rows", "difference", "95% interval", "better/worse/same", "p")
    table.caption, table.caption_justify = f"p: {', '.join(sorted(tests))}", "left"
    for row in report.differences:
        comparison, difference = row.comparison, row.comparison.difference
        table.add_row(
            escape(row.label),
            f"{difference.value:+.3f}",
            f"{difference.low:+.3f} to {difference.high:+.3f}",
            f"{comparison.wins}/{comparison.losses}/{comparison.ties}",
            f"{comparison.p:.2g}",
        )
    return table


def _table(first: str, *numbers: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1))
    table.add_column(first)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _link(path: Path) -> str:
    return escape(str(path.resolve()))
