"""Are these the right function calls? Three measures of one comparison.

binary_tool_call        the calls equal the expected ones, no argument more or fewer
tool_call_equivalence   the same once arguments equal to their default in the function's schema are dropped
staged_tool_call        how far an answer got: 0.25 its calls could be read, 0.50 the right functions, 0.75 the right
                        names of arguments, 1.0 all of it

Source: the tool-calling metrics of distil labs' benchmarks, which compare predicted and expected calls as dictionaries;
tool_call_equivalence is the published one. Several calls may come in any order.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

from slimtune.data import Completion, Example, Score, ToolCall
from slimtune.models.toolcalls import attempts_tool_call

Defaults = Mapping[str, Mapping[str, str]]


def tool_call_equivalence(completion: Completion, example: Example) -> Score:
    """1 when the calls are the expected ones, in any order, each with equal arguments and none more or fewer.

    `completion.tool_calls` holds what `parse_tool_calls` read. An argument equal to its default in the schema
    (`example.tools`) may be given or left out. 1 equals 1.0; "1" and true do not. Where no call is due, prose is right
    and anything that looks like a call is wrong. `answer` is None when no call could be read.
    """
    return _without_calls(completion, example) or _compared(completion, example, _defaults(completion, example))


def binary_tool_call(completion: Completion, example: Example) -> Score:
    """As `tool_call_equivalence`, but blind to defaults: 1 when what was expected was given, and nothing else."""
    return _without_calls(completion, example) or _compared(completion, example, {})


def staged_tool_call(completion: Completion, example: Example) -> Score:
    """0.25 when calls could be read, 0.50 when their functions are the expected ones, 0.75 when the names of their
    arguments are too (one that has a default counts as given), and 1 just where `tool_call_equivalence` is 1. An answer
    that calls nothing where a call is due is 0."""
    if settled := _without_calls(completion, example):
        return settled
    calls, expected, defaults = completion.tool_calls, example.target, _defaults(completion, example)
    if not calls:
        return Score(0.0, calls_text(calls), _difference(calls, expected))
    passed = [
        sorted(view(call, defaults) for call in calls) == sorted(view(call, defaults) for call in expected)
        for view in (_function, _names, _canonical)
    ]
    return Score((1 + sum(passed)) / 4, calls_text(calls), "" if all(passed) else _difference(calls, expected))


def calls_text(calls: Collection[ToolCall]) -> str:
    """The calls that were read, as one line of JSON: the `answer` of a Score."""
    return json.dumps([call.as_json() for call in calls], ensure_ascii=False)


def why_unread(completion: Completion) -> str:
    """Why no call could be read from an answer."""
    if completion.cut_off:
        return "cut off before the call was whole"
    return f"no tool call could be read: it {completion.unread}" if completion.unread else "no tool call could be read"


def expected_calls(example: Example) -> tuple[ToolCall, ...]:
    """The calls that are due. Raises TypeError for an example of another kind of task."""
    if isinstance(example.target, str):
        raise TypeError(f"example {example.id} expects text, not tool calls")
    return example.target


def _without_calls(completion: Completion, example: Example) -> Score | None:
    """The score where nothing is to be compared: no call was read, or none is due and none was made."""
    calls, expected = completion.tool_calls, expected_calls(example)
    if not calls and not expected:
        tried = attempts_tool_call(completion.text) and calls is None
        return Score(float(not tried), None if tried else "", why_unread(completion) if tried else "")
    return Score(0.0, None, why_unread(completion)) if calls is None else None


def _compared(completion: Completion, example: Example, defaults: Defaults) -> Score:
    calls, expected = completion.tool_calls, example.target
    got, want = (sorted(_canonical(call, defaults) for call in side) for side in (calls, expected))
    return Score(float(got == want), calls_text(calls), "" if got == want else _difference(calls, expected))


def _defaults(completion: Completion, example: Example) -> Defaults:
    """For each function that was called or is due, the canonical text of each argument that has a default."""
    wanted = {call.name for call in (*completion.tool_calls, *example.target)}
    found: dict[str, dict[str, str]] = {}
    for tool in example.tools:
        function = tool.get("function", tool)
        if function.get("name") not in wanted:
            continue
        arguments = (function.get("parameters") or {}).get("properties") or {}
        found[function["name"]] = {
            name: _text(schema["default"])
            for name, schema in arguments.items()
            if isinstance(schema, Mapping) and "default" in schema
        }
    return found


def _function(call: ToolCall, defaults: Defaults) -> str:
    return call.name


def _names(call: ToolCall, defaults: Defaults) -> list[str]:
    return [call.name, *sorted({*call.arguments, *defaults.get(call.name, ())})]


def _canonical(call: ToolCall, defaults: Defaults) -> str:
    known = defaults.get(call.name, {})
    kept = {name: value for name, value in call.arguments.items() if known.get(name) != _text(value)}
    return f"{call.name} {_text(kept)}"


def _text(value: Any) -> str:
    """Canonical JSON: keys sorted, and whole floats as integers, so that 1.0 is 1 and is neither "1" nor true."""
    return json.dumps(_whole(value), sort_keys=True, ensure_ascii=False)


def _whole(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _whole(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _difference(calls: Collection[ToolCall], expected: Collection[ToolCall]) -> str:
    got, want = sorted(call.name for call in calls), sorted(call.name for call in expected)
    if got != want:
        return f"called {', '.join(got) or 'nothing'} instead of {', '.join(want) or 'nothing'}"
    return f"wrong arguments for {', '.join(sorted(set(got)))}"
