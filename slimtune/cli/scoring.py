"""`slimtune evaluate`: its options, and which of them go with a served model."""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from slimtune import screen
from slimtune.cli.options import DataOption
from slimtune.errors import UserError


def evaluate(
    target: Annotated[
        str, typer.Argument(metavar="RUN|MODEL", help="A run's folder, a model, or openai:NAME for a served one.")
    ],
    task: Annotated[str | None, typer.Option("--task", help="A task. Default: the run's own.")] = None,
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="Score this many test rows.")] = None,
    few_shot: Annotated[
        int,
        typer.Option("--few-shot", min=0, help="Worked examples in the prompt; with few labels, one of each at least."),
    ] = 0,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where the scores go.")] = None,
    data: DataOption = None,
    base_url: Annotated[str, typer.Option("--base-url", metavar="URL", help="openai: where it is, up to /v1.")] = "",
    key_env: Annotated[
        str | None, typer.Option("--key-env", metavar="NAME", help="openai: the variable that holds the key.")
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=256, help="openai: requests at once.")] = 4,
    longest: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, help="openai: longest answer, thoughts included.")
    ] = None,
    budget: Annotated[float | None, typer.Option("--budget-usd", min=0, help="openai: dollars that may go.")] = None,
    price_in: Annotated[
        float | None, typer.Option("--usd-per-m-in", min=0, help="openai: dollars a million tokens of prompts.")
    ] = None,
    price_out: Annotated[
        float | None, typer.Option("--usd-per-m-out", min=0, help="openai: dollars a million tokens of answers.")
    ] = None,
) -> None:
    """Score a model, a run's adapter, or a served model on a task's test rows."""
    from slimtune import jobs
    from slimtune.answering import score_served
    from slimtune.check import checked_task
    from slimtune.pipeline import evaluate_target
    from slimtune.sweep.studies import refuse_study

    given = Given(base_url, key_env, concurrency, longest, budget, price_in, price_out)
    console, served = Console(), served_model(target, given)
    with screen.Live(console) as listener:
        heard = {"few_shot": few_shot, "out": out, "listener": listener, "should_stop": jobs.stop_flag()}
        if served is not None:
            asked = checked_task(None, task_name=task, rows=rows, data_dir=data)
            folder, evaluation = score_served(served, asked, **heard)
        else:
            refuse_study(Path(target))
            folder, evaluation = evaluate_target(target, task_name=task, rows=rows, data_dir=data, **heard)
    screen.show_evaluation(console, evaluation, folder)
    if served is None and task is not None:
        asked = {"--task": task, "--rows": rows, "--few-shot": few_shot, "--data": data}
        _show_base(console, target, evaluation, asked)


def _show_base(console: Console, target: str, tuned: Any, options: dict[str, Any]) -> None:
    """How the base of a run does on the task that its adapter was asked, or how to know it."""
    from slimtune.pipeline import RUNS, find_target
    from slimtune.report.against_base import against_base

    found = find_target(target)
    if found.run is None:
        return
    words = [str(word) for option, value in options.items() if value for word in (option, value)]
    command = shlex.join(["slimtune", "evaluate", found.recipe.model, *words])
    base = RUNS / f"{found.spec.key}-on-{tuned.name}"
    console.print(against_base(tuned, base, command), markup=False, soft_wrap=True)


@dataclass(frozen=True)
class Given:
    """What the command line says of a served model: the fields of an Endpoint of these names."""

    base_url: str = ""
    key_env: str | None = None
    concurrency: int = 4
    max_new_tokens: int | None = None
    budget_usd: float | None = None
    usd_per_m_input: float | None = None
    usd_per_m_output: float | None = None


def served_model(target: str, given: Given) -> Any:
    """The endpoint that openai:NAME means; None for other targets. UserError where the options do not go with it."""
    from slimtune.endpoint import Endpoint

    kind, _, model = target.partition(":")
    if kind != "openai" or not model:
        if given != Given(concurrency=given.concurrency):
            raise UserError(
                "--base-url, --key-env, --max-new-tokens, the budget and the prices are for a served model: "
                f"slimtune evaluate openai:{target} --base-url URL."
            )
        return None
    if not given.base_url:
        raise UserError(
            f"Say where {model} is served: --base-url http://127.0.0.1:8000/v1 (vLLM's; 11434/v1 is Ollama's, 8080/v1 "
            "llama.cpp's), or a service's address."
        )
    return Endpoint(model, **asdict(given))
