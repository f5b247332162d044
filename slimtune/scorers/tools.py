"""Are these the right function calls?

Source: the tool_call_equivalence of distil labs' benchmarks: predicted and expected calls are compared as dictionaries
after arguments equal to their default in the function's schema are dropped; 1 or 0.
"""

import json
from collections.abc import Mapping
from typing import Any

from slimtune.data import Completion, Example, Score, ToolCall
from slimtune.models.toolcalls import attempts_tool_call


def tool_call_equivalence(completion: Completion, example: Example) -> Score:
    """1 when the calls are the expected ones, in any order, each with equal arguments and none more or fewer.

    `completion.tool_calls` holds what `parse_tool_calls` read. An argument equal to its default in the schema
    (`example.tools`) may be given or left out. 1 equals 1.0; "1" and true do not. Where no call is due, prose is right
    and anything that looks like a call is wrong. `answer` is None when no call could be read.
    """
    calls, expected = completion.tool_calls, example.target
    if isinstance(expected, str):
        raise TypeError(f"example {example.id} expects text, not tool calls")
    if not calls and not expected:
        tried = attempts_tool_call(completion.text) and calls is None
        return Score(float(not tried), None if tried else "", _unreadable(completion) if tried else "")
    if calls is None:
        return Score(0.0, None, _unreadable(completion))
    defaults = _defaults(example)
    got, want = (sorted(_canonical(call, defaults) for call in side) for side in (calls, expected))
    answer = json.dumps([call.as_json() for call in calls], ensure_ascii=False)
    return Score(float(got == want), answer, "" if got == want else _difference(calls, expected))


def _defaults(example: Example) -> dict[str, dict[str, str]]:
    """For each function, the canonical text of each argument that has a default."""
    found: dict[str, dict[str, str]] = {}
    for tool in example.tools:
        function = tool.get("function", tool)
        arguments = (function.get("parameters") or {}).get("properties") or {}
        found[function.get("name", "")] = {
            name: _text(schema["default"])
            for name, schema in arguments.items()
            if isinstance(schema, Mapping) and "default" in schema
        }
    return found


def _canonical(call: ToolCall, defaults: Mapping[str, Mapping[str, str]]) -> str:
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


def _unreadable(completion: Completion) -> str:
    if completion.stopped == "length":
        return "cut off before the call was whole"
    return f"no tool call could be read: it {completion.unread}" if completion.unread else "no tool call could be read"


def _difference(calls: tuple[ToolCall, ...], expected: tuple[ToolCall, ...]) -> str:
    got, want = sorted(call.name for call in calls), sorted(call.name for call in expected)
    if got != want:
        return f"called {', '.join(got) or 'nothing'} instead of {', '.join(want) or 'nothing'}"
    return f"wrong arguments for {', '.join(sorted(set(got)))}"
