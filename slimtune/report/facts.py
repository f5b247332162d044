"""The short tables of names and values: memory, time, what really ran, where the data came from."""

from collections.abc import Mapping, Sequence
from typing import Any

from slimtune.report.collect import RunFiles, section
from slimtune.report.text import duration, gib, integer, number
from slimtune.tasks.task import TEST
from slimtune.wording import scored_rows, weights

Fact = tuple[str, str]


def memory_facts(run: RunFiles) -> tuple[Fact, ...]:
    """Planned and measured peak memory; empty without a GPU."""
    if not run.environment.get("gpu"):
        return ()
    planned, measured = section(run.plan, "peak_gib"), run.training.get("peak_gpu_gib")
    low, expected, high = planned.get("low"), planned.get("expected"), planned.get("high")
    facts = [("Measured peak", gib(measured) if number(measured) else "not measured")]
    if number(expected):
        between = f", between {low:.2f} and {high:.2f}" if number(low) and number(high) else ""
        facts.append(("Planned peak", gib(expected) + between))
    if number(expected) and number(measured) and expected > 0:
        inside = number(low) and number(high) and low <= measured <= high
        words = "inside the planned range" if inside else "outside the planned range"
        facts.append(("Measured against planned", f"{measured / expected - 1:+.1%}, {words}"))
    facts += [(f"Planned for {name}", gib(size)) for name, size in section(run.plan, "parts_gib").items()]
    return tuple(facts)


def training_facts(run: RunFiles) -> tuple[Fact, ...]:
    """Time and tokens. Nothing is said that training.json and metrics.jsonl do not."""
    training = run.training
    if not training:
        return ()
    seconds, tokens = training.get("seconds"), training.get("tokens")
    rate = f"{tokens / seconds:,.0f} tokens a second" if number(tokens) and number(seconds) and seconds > 0 else "-"
    shared = run.environment.get("collation") == "shared-prefix"
    once = "; what the prompts of a batch share is computed, and counted, once" if shared else ""
    facts = [
        ("Training time", f"{duration(seconds)}, {rate}"),
        ("Steps", f"{integer(training.get('steps'))} of {integer(run.plan.get('batch'))} rows"),
        ("Training rows", integer(training.get("train_rows"))),
        ("Tokens", f"{integer(tokens)}, {integer(training.get('supervised_tokens'))} of them supervised{once}"),
        ("Loss, first and last step", f"{_loss(training.get('first_loss'))} to {_loss(training.get('last_loss'))}"),
        ("Steps skipped", integer(sum(bool(step.get("skipped")) for step in run.steps)) if run.steps else "-"),
        ("Compiled or captured after step 10", integer(training.get("graphs_made_late"))),
        ("Times resumed", integer(training.get("resumed"))),
        ("Adapter SHA-256", str(training.get("adapter_sha256") or "-")),
    ]
    splits = training.get("oom_splits") or []
    if splits:
        where = ", ".join(f"step {split.get('step')} to {split.get('micro_batch')}" for split in splits)
        facts.append(("Micro-batch halved for memory", where))
    return tuple(facts)


def _loss(value: Any) -> str:
    return f"{value:.4f}" if number(value) else "-"


def ran_facts(run: RunFiles) -> tuple[Fact, ...]:
    """What really ran, from environment.json."""
    environment, model = run.environment, run.model
    if not environment:
        return ()
    modules = ", ".join(f"{leaf} x {count}" for leaf, count in section(environment, "adapter_modules").items())
    versions = _versions(section(environment, "versions"))
    facts = [
        ("Model", _joined(model, ("label", "key"))),
        ("Note", run.note),
        ("Source", _joined(model, ("source", "revision"), " at ")),
        ("Weights digest", model.get("digest")),
        ("Device", _joined(environment, ("device", "gpu"))),
        ("Precision", _precision(environment)),
        ("Attention", environment.get("attention")),
        ("Collation", environment.get("collation")),
        ("Adapter on", modules),
        ("Trainable parameters", integer(environment.get("trainable_parameters"))),
        ("Chat template SHA-256", environment.get("template_sha256")),
        ("Platform", environment.get("platform")),
        ("CPU threads", environment.get("cpu_threads")),
        ("Versions", versions),
        ("Went on with", "; ".join(_versions(later) for later in _listed(environment.get("went_on_with")))),
        ("Started, finished", _joined(environment, ("started", "finished"), " to ")),
    ]
    return tuple((name, str(value)) for name, value in facts if value)


def _precision(environment: Mapping[str, Any]) -> str:
    precision, quantisation = environment.get("precision"), environment.get("quantisation")
    return weights(precision, quantisation, gpu=environment.get("gpu")) if precision and quantisation else ""


def _versions(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def context_facts(run: RunFiles) -> tuple[Fact, ...]:
    """How the context was stretched, as read back from the model; empty where it was not."""
    rope = section(run.environment, "rope")
    if rope.get("method") != "yarn":
        return ()
    parameters = section(rope, "rope_parameters")
    vouched = "by nobody: it is an experiment" if rope.get("experimental") else "by the model's makers"
    return (
        ("Context", f"{integer(rope.get('length'))} tokens, by YaRN"),
        ("Factor", f"{parameters.get('factor')}, over {integer(parameters.get('original_max_position_embeddings'))}"),
        ("Base of the positions", integer(parameters.get("rope_theta"))),
        ("Vouched for", vouched),
    )


def without_yarn(run: RunFiles) -> str:
    """The command that scores the base on the short needles as it was made; empty where there were none."""
    short = run.needles.get("needle-short-base")
    rows = short.facts.get("n") if short else None
    return f"slimtune evaluate {run.recipe.get('model')} --task needle --rows {rows}" if rows else ""


def serving(run: RunFiles) -> tuple[Fact, ...]:
    """The flags that serve a stretched context, by server."""
    rope = section(run.environment, "rope")
    servers = (("vLLM, from 0.11.1 on", "vllm"), ("llama.cpp", "llama_cpp"))
    return tuple((name, str(rope[key])) for name, key in servers if rope.get(key))


def departures(run: RunFiles) -> tuple[str, ...]:
    """Where what ran is not what was planned."""
    keys = ("gpu", "precision", "quantisation", "collation")
    both = [(key, run.plan.get(key), run.environment.get(key)) for key in keys if run.plan and run.environment]
    found = [f"{key}: planned {planned}, ran {ran}" for key, planned, ran in both if planned and planned != ran]
    planned, ran = run.plan.get("micro_batch"), run.training.get("micro_batch")
    if planned and ran and planned != ran:
        found.append(f"micro-batch: planned {planned}, ran {ran}")
    return tuple(found)


def data_facts(run: RunFiles) -> tuple[Fact, ...]:
    """The task, its size, its licence and whom to thank."""
    data = run.data
    facts = [
        ("Task", _joined(data, ("task", "kind"))),
        ("Rows", f"{integer(data.get('train_rows'))} to train on, {integer(data.get('test_rows'))} to test on"),
        ("Scored on", scored_rows(run.scored_on) if run.scored_on != TEST else None),
        ("Scorer", data.get("scorer")),
        ("Licence", data.get("licence")),
        ("Attribution", data.get("attribution")),
        ("Digest", data.get("digest")),
        ("Train and test overlap", ", ".join(f"{name} {value}" for name, value in section(data, "overlap").items())),
        ("Notes", " ".join(str(note) for note in _listed(data.get("notes")))),
    ]
    return tuple((name, str(value)) for name, value in facts if value) if data else ()


def plan_notes(run: RunFiles) -> tuple[str, ...]:
    return tuple(str(note) for note in _listed(run.plan.get("notes")))


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _joined(values: Mapping[str, Any], keys: Sequence[str], between: str = ", ") -> str:
    return between.join(str(values[key]) for key in keys if values.get(key))
