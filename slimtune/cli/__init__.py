"""The command line: arguments in, one call, and what came of it on the screen. Nothing else in slimtune prints."""

import gc

gc.disable()  # nothing of what is imported is garbage, and it takes a tenth of a second to see that

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from slimtune import __version__, screen
from slimtune.cli.benching import bench
from slimtune.cli.options import CardOption, DataOption, OutOption, RecipeArgument, SetOption
from slimtune.cli.ranking import rank, recommend
from slimtune.cli.scoring import evaluate
from slimtune.cli.sweeping import sweep
from slimtune.errors import DoesNotFit, SlimtuneError, UserError

gc.freeze()
gc.enable()

app = typer.Typer(
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Fine-tune a small language model on one GPU, with proof that it helped."""
    if version:
        Console().print(f"slimtune {__version__}")
    elif context.invoked_subcommand is None:
        screen.show_start(Console())


@app.command()
def run(
    recipe: RecipeArgument,
    overrides: SetOption = [],  # noqa: B006  typer copies it
    out: OutOption = None,
    data: DataOption = None,
    as_gpu: CardOption = None,
) -> None:
    """Run a recipe: base score, fine-tune, tuned score, report. Interrupted? The same command goes on."""
    _run(recipe, overrides, out=out, data=data, as_gpu=as_gpu)


@app.command()
def demo(out: OutOption = None) -> None:
    """Run the main job on the embedded model and task: a few minutes on two CPU cores, no account, no download."""
    _run("smollm2-banking77-demo", [], out=out, data=None, as_gpu=None)


@app.command()
def check(
    recipe: RecipeArgument,
    overrides: SetOption = [],  # noqa: B006  typer copies it
    data: DataOption = None,
    gpu: Annotated[str | None, typer.Option("--gpu", help="Plan for this card instead of this machine's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Show what a recipe would train, what it takes, and everything wrong with it."""
    from slimtune import check as checks
    from slimtune.gpus import detect_gpu, get_gpu
    from slimtune.lengths import count_tokens
    from slimtune.recipe import find_recipe, read_recipe

    prepared = checks.ready(read_recipe(find_recipe(recipe), overrides), data_dir=data)
    console = Console()
    with screen.Live(Console(stderr=True) if as_json else console) as listener:
        tokens = count_tokens(prepared.spec, prepared.task, prepared.recipe, say=listener.say)
    counted = None if isinstance(tokens, str) else tokens
    plan = checks.plan_of(prepared, gpu=get_gpu(gpu) if gpu else detect_gpu(), counted=counted)
    if as_json:
        screen.show_json(checks.as_json(prepared, tokens, plan))
        return
    screen.show_check(console, prepared, tokens, plan)


@app.command()
def plan(
    what: Annotated[str | None, typer.Argument(metavar="RECIPE|MODEL", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="A table of every model on the card.")] = False,
    gpu: Annotated[
        list[str], typer.Option("--gpu", help="Plan for this card instead of this machine's; several may be named.")
    ] = [],  # noqa: B006
    context: Annotated[str | None, typer.Option("--context", help="Tokens of a row, e.g. 8192 or 32k.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Rows of an optimizer step.")] = None,
    rank: Annotated[int | None, typer.Option("--rank", help="LoRA rank.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Try it here with random weights: no download.")] = False,
    overrides: SetOption = [],  # noqa: B006  typer copies it
    data: DataOption = None,
) -> None:
    """Say whether it fits, at which context and precision, how long it takes and what it costs. Downloads nothing."""
    from slimtune import forecast
    from slimtune.gpus import get_gpu

    if measure and len(gpu) > 1:
        raise UserError("--measure tries it on the card that is here: it goes with one --gpu at most.")
    cards, console, refused = [get_gpu(name).name for name in gpu] or [None], Console(), []
    for card in cards:
        asked = forecast.Asked(card, context, batch, rank, tuple(overrides), data)
        try:
            _plan_for(console, what, asked, every=every, measure=measure)
        except DoesNotFit as error:
            if len(cards) == 1:
                raise
            screen.show_error(console, error)
            refused.append(card)
        if card != cards[-1]:
            console.print()
    if refused == cards:
        raise typer.Exit(UserError.exit_code)


def _plan_for(console: Console, what: str | None, asked: Any, *, every: bool, measure: bool) -> None:
    """The plan for one card, or the table of every model on it."""
    from slimtune import forecast, screen_plan

    if every:
        screen_plan.show_all(console, *forecast.plan_all(what, asked))
        return
    answer = forecast.plan_one(what, asked)
    screen_plan.show_forecast(console, answer)
    if measure:
        screen_plan.show_measured(console, answer, forecast.measure(answer))


app.command()(evaluate)
app.add_typer(sweep, name="sweep", help="A study: models x tasks x seeds, run, watched, planned, written out.")
app.add_typer(bench, name="bench", help="Measure this machine: who trains how fast.")
app.command()(rank)
app.command()(recommend)


@app.command(name="app")
def app_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where runs/ is, or will be.")] = Path(),
    host: Annotated[
        str, typer.Option("--host", help="Let other machines in, behind a password: 0.0.0.0.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Default: the first free one from 7860 on.")
    ] = None,
    share: Annotated[bool, typer.Option("--share", help="A public link through Gradio, behind a password.")] = False,
) -> None:
    """Open the app in a browser: plan, start, watch, compare and try. What it starts goes on when it is closed."""
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. The app keeps its runs in it: make it first.")
    os.chdir(folder)
    with _uncollected():
        try:
            from slimtune.app.serve import PASSWORD, USER, serve
        except ModuleNotFoundError as error:
            raise UserError("The app needs Gradio. Run: pip install 'slimtune[app]', or `make install`.") from error
        served = serve(host=host, port=port, share=share)
    screen.show_app(Console(), served, user=USER, variable=PASSWORD)
    served.wait()


@app.command(name="list")
def list_(
    what: Annotated[str, typer.Argument(metavar="models|tasks|gpus|scorers|recipes|recipe-keys|matrices|runs")],
) -> None:
    """List what slimtune knows by name."""
    screen.show_list(Console(), what)


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="FOLDER", help="The task's folder, which is made.")],
    source: Annotated[Path, typer.Option("--from", metavar="FILE", help="Rows: .csv, .tsv or .jsonl.")],
    column: Annotated[list[str], typer.Option("--column", metavar="OURS=THEIRS", help="E.g. text=body.")] = [],  # noqa: B006
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave rows out that cannot be read.")] = False,
) -> None:
    """Make a task folder and a recipe from one file of rows, parted without leaks, and say what to look at."""
    from slimtune.newtask import columns_of, new_task

    made = new_task(name, source, columns=columns_of(column), skip_bad=skip_bad)
    Console().print(
        f"{made.folder}: {made.train_rows:,} training rows, {made.test_rows:,} test rows, and recipe.yaml.",
        *(f"- {remark}" for remark in made.remarks),
        f"Next: slimtune check {made.folder}/recipe.yaml",
        sep="\n",
        markup=False,
        highlight=False,
    )


@app.command()
def doctor() -> None:
    """Say what this machine has, what would go wrong, and how to mend it."""
    from slimtune.doctor import diagnose

    findings = diagnose()
    screen.show_findings(Console(), findings)
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(2)


def _run(recipe: str, overrides: list[str], *, out: Path | None, data: Path | None, as_gpu: str | None) -> None:
    from slimtune import check as checks
    from slimtune import jobs
    from slimtune.gpus import get_gpu
    from slimtune.pipeline import run_recipe
    from slimtune.recipe import find_recipe, read_recipe, recipe_name

    console = Console()
    path = find_recipe(recipe)
    prepared = checks.ready(read_recipe(path, overrides), data_dir=data)
    screen.show_title(console, prepared)
    with screen.Live(console) as listener:
        outcome = run_recipe(
            prepared,
            name=recipe_name(path),
            out=out,
            as_gpu=get_gpu(as_gpu) if as_gpu else None,
            listener=listener,
            should_stop=jobs.stop_flag(),
        )
    screen.show_outcome(console, outcome)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """While much is made that stays. What is there at the end is never looked through for garbage."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def main() -> None:
    """Entry point: errors for people are a sentence and an exit code; ours come with their traceback and 70."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # what a terminal's encoding lacks is shown as a question mark
    try:
        app()
    except SlimtuneError as error:
        screen.show_error(Console(stderr=True), error)
        sys.exit(error.exit_code)
    except Exception:  # the boundary: whatever else it is, it is our bug, and the traceback says where
        Console(stderr=True).print_exception(show_locals=False)
        screen.show_bug(Console(stderr=True))
        sys.exit(70)
