"""What a model is told and asked: each kind's prompt, a Jinja2 template in a sandbox, the same for every model.

`prompts/KIND.jinja` has a block `system` (the instruction, with the labels or types) and, where the user's turn is made
from a row's fields, a block `user`. A task folder may say either in its own words: `prompt.jinja` with these blocks, or
the keys `system` and `user` of job.json.

A template comes with data, so it is read as a stranger's. Beside Jinja's own sandbox it may hold text, values, `if`
and `for` alone (an allow-list, so no calls, arithmetic, macros or imports), and what it loops and writes is counted.
"""

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from slimtune.tasks.job import Job

FOLDER = Path(__file__).parent / "prompts"
ROLES = ("system", "user")
MOST_SOURCE = 20_000  # characters of a template
MOST_WRITTEN = 4 << 20  # characters of a turn: the cap of a row
MOST_ROUNDS = 100_000  # of all loops together, for one turn
_JINJA = "a prompt's template may hold text, {{ values }}, {% if %} and {% for %}"
_ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem, nodes.If,
    nodes.For, nodes.Block, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Test,
    nodes.Filter,
)  # fmt: skip
_TESTS = ("defined", "none", "string", "mapping", "number")
_COUNTED = "counted"  # the filter that every loop's values go through
_BUDGET = "rounds of loops left"  # where it finds its budget: no template can name this

Turn = Callable[[Context], Iterator[str]]


@dataclass(frozen=True)
class Prompt:
    """The turns that a template makes, compiled."""

    template: jinja2.Template
    turns: Mapping[str, Turn]


def system_turn(job: Job) -> str:
    """The instruction of a task. Raises ValueError where its template cannot be filled."""
    labels = [{"name": label, "description": job.label_descriptions.get(label) or ""} for label in job.labels]
    values = {
        "title": job.shown,
        "description": job.description,
        "labels": labels,
        "entity_types": list(job.entity_types),
    }
    return _written("system", job.kind, job, values)


def user_turn(kind: str, job: Job, row: Mapping[str, Any]) -> str:
    """What a row of this kind asks. Raises ValueError where the template names a field that the row does not have."""
    return _written("user", kind, job, row)


def check_templates(sources: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is wrong with a folder's own templates ("prompt", "system", "user"), each by its name."""
    for name, source in sources.items():
        try:
            prompt = compiled(source)
        except ValueError as error:
            yield name, str(error)
            continue
        if name == "prompt" and not prompt.turns:
            yield name, "has neither a block system nor a block user: {% block system %}...{% endblock %}."
        if name == "prompt" and (other := sorted(prompt.turns.keys() - {*ROLES})):
            yield name, f"has the block {other[0]}; the blocks of a prompt are system and user."
        if name != "prompt" and prompt.turns:
            yield name, "is one turn and has no blocks."


@functools.lru_cache(maxsize=64)
def compiled(source: str) -> Prompt:
    """A template made safe. Raises ValueError, with a clause about the template, for what it may not hold."""
    if len(source) > MOST_SOURCE:
        raise ValueError(f"has {len(source):,} characters; a prompt's template has at most {MOST_SOURCE:,}.")
    try:
        tree = _ENVIRONMENT.parse(source)
        _refuse(tree)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, _COUNTED, [], [], None, None)
        template = _ENVIRONMENT.from_string(tree)
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"is no template: line {error.lineno}: {error.message}") from error
    except (RecursionError, SyntaxError, MemoryError) as error:
        raise ValueError("is nested too deeply for a template.") from error
    return Prompt(template, template.blocks)


def _written(role: str, kind: str, job: Job, values: Mapping[str, Any]) -> str:
    prompt, turn = _turn_of(role, kind, job)
    context = prompt.template.new_context({**values, _BUDGET: [MOST_ROUNDS]})
    parts, length = [], 0
    try:
        for part in turn(context):
            parts.append(part)
            if (length := length + len(part)) > MOST_WRITTEN:
                raise ValueError(f"becomes longer than {MOST_WRITTEN:,} characters in the {role} template.")
    except jinja2.TemplateError as error:  # an undefined name, an attribute that the sandbox refuses
        raise ValueError(f"does not fit the {role} template: {error.message}.") from error
    except (TypeError, RecursionError, OverflowError) as error:
        raise ValueError(f"does not fit the {role} template: {error}.") from error
    return "".join(parts).removesuffix("\n")


def _turn_of(role: str, kind: str, job: Job) -> tuple[Prompt, Turn]:
    """The folder's own words for a turn, or those of the kind."""
    if own := {"system": job.system, "user": job.user}[role]:
        prompt = compiled(own)
        return prompt, prompt.template.root_render_func
    for source in filter(None, (job.prompt, _source(kind))):
        prompt = compiled(source)
        if role in prompt.turns:
            return prompt, prompt.turns[role]
    raise ValueError(f"has no {role} template: rows of the kind {kind} bring that turn themselves.")


@functools.cache
def _source(kind: str) -> str:
    return (FOLDER / f"{kind}.jinja").read_text(encoding="utf-8")


def _refuse(tree: nodes.Template) -> None:
    for node in chain([tree], tree.find_all(nodes.Node)):
        if isinstance(node, nodes.Call):
            raise ValueError(f"calls something on line {node.lineno}, and {_JINJA}, no calls.")
        if not isinstance(node, _ALLOWED):
            raise ValueError(f"has a {type(node).__name__} on line {node.lineno}, and {_JINJA} only.")
        if isinstance(node, nodes.Filter) and (node.name not in _FILTERS or node.node is None):
            raise ValueError(f"uses the filter {node.name!r}; those of a prompt are {', '.join(_FILTERS)}.")
        if isinstance(node, nodes.Test) and node.name not in _TESTS:
            raise ValueError(f"uses the test {node.name!r}; those of a prompt are {', '.join(_TESTS)}.")
        if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
            raise ValueError(f"asks for {node.attr!r} on line {node.lineno}: names with an underscore are closed.")


@jinja2.pass_context
def _counted(context: Context, values: Any) -> Iterator[Any]:
    budget = context[_BUDGET]
    if not isinstance(values, list | tuple | Mapping):
        raise jinja2.TemplateRuntimeError("a loop goes over a list, and this value is none")
    for value in values:
        budget[0] -= 1
        if budget[0] < 0:
            raise jinja2.TemplateRuntimeError(f"its loops go round more than {MOST_ROUNDS:,} times")
        yield value


def _join(values: Iterable[Any], between: str = "") -> str:
    texts = [str(value) for value in values]
    if sum(map(len, texts)) + len(between) * len(texts) > MOST_WRITTEN:
        raise jinja2.TemplateRuntimeError(f"it joins more than {MOST_WRITTEN:,} characters")
    return between.join(texts)


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


_FILTERS: dict[str, Callable[..., Any]] = {"join": _join, "tojson": _to_json, "trim": str.strip, "length": len}


def _environment() -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.globals.clear()
    environment.filters = {**_FILTERS, _COUNTED: _counted}
    environment.tests = {name: environment.tests[name] for name in _TESTS}
    return environment


_ENVIRONMENT = _environment()
