"""What is to be known of served models: the teacher that answered, and the judge that scored."""

from collections.abc import Mapping
from typing import Any

from slimtune.report.collect import Evaluated, RunFiles, section
from slimtune.report.facts import Fact
from slimtune.report.text import integer, number, percent
from slimtune.scorers.judge import MOST_UNSCORED


def teacher_facts(run: RunFiles) -> tuple[Fact, ...]:
    """Who answered, by its own word, and what that took; empty without a teacher."""
    teacher = run.evaluations.get("teacher")
    served = section(teacher.facts, "served") if teacher else {}
    if not served:
        return ()
    facts = [
        *_who(served),
        (
            "Tokens",
            f"{integer(served.get('prompt_tokens'))} of prompts, {integer(served.get('completion_tokens'))} back",
        ),
        ("Cost", _usd(served)),
        ("Refused, filtered", f"{integer(served.get('refused'))}, {integer(served.get('filtered'))}"),
        ("Calls lost", _lost(served)),
        ("Settings it does not take", ", ".join(map(str, _listed(served.get("without"))))),
    ]
    return tuple((name, value) for name, value in facts if value)


def judge_facts(run: RunFiles) -> tuple[Fact, ...]:
    """Who judged, with which prompt, and how far that agrees with exact match; empty without a judge."""
    judged = {one.label: section(one.facts, "judge") for one in run.evaluations.values() if one.facts.get("judge")}
    if not judged:
        return ()
    first = next(iter(judged.values()))
    facts = [
        *_who(first),
        ("Prompt SHA-256", str(first.get("prompt_sha256") or "-")),
        ("Tried beforehand on", f"{integer(first.get('canaries'))} answers whose score is known"),
        *((f"Agrees with exact match, {label}", _agreement(facts)) for label, facts in judged.items()),
    ]
    return tuple((name, value) for name, value in facts if value)


def served_remarks(run: RunFiles) -> tuple[str, ...]:
    """What a reader of a score has to know."""
    return tuple(remark for one in run.evaluations.values() for remark in _remarks(one))


def _remarks(one: Evaluated) -> list[str]:
    found = []
    for kind in ("served", "judge"):
        names = section(section(one.facts, kind), "answered_by")
        if len(names) > 1:
            shares = ", ".join(f"{name} {integer(rows)}" for name, rows in names.items())
            found.append(f"{one.label}: more than one model answered under one name ({shares}).")
    judge, n = section(one.facts, "judge"), one.facts.get("n")
    unscored = judge.get("unscored")
    if number(unscored) and number(n) and n and unscored / n > MOST_UNSCORED:
        share = f"{percent(unscored / n)} of the answers"
        found.append(f"{one.label}: the judge gave no verdict on {share}; its score is not comparable.")
    return found


def _who(served: Mapping[str, Any]) -> list[Fact]:
    names = section(served, "answered_by")
    return [
        ("Model", str(served.get("model") or "-")),
        ("Called itself", ", ".join(f"{name} ({integer(rows)})" for name, rows in names.items())),
        ("Served at", str(served.get("base_url") or "-")),
    ]


def _usd(served: Mapping[str, Any]) -> str:
    return f"${served['usd']:,.4f}" if number(served.get("usd")) else "no prices were given"


def _lost(served: Mapping[str, Any]) -> str:
    lost = served.get("lost_calls")
    return f"{integer(lost)}, of which the service may have made some" if number(lost) and lost else ""


def _agreement(judge: Mapping[str, Any]) -> str:
    both = section(judge, "agreement")
    n, same = both.get("n"), both.get("same")
    if not number(n) or not number(same) or not n:
        return "-"
    alone = f"right for the judge alone {integer(both.get('judge_alone'))}, for exact match alone "
    return f"{percent(same / n)} of {integer(n)}; {alone}{integer(both.get('exact_alone'))}"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
