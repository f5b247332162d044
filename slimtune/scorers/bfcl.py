"""Are the calls among the accepted ones? The AST check of the Berkeley Function Calling Leaderboard, for single turns.

`meta["accepted"]` holds what BFCL calls possible answers: for each call that is due, the function and, for each
argument, the list of values that count; "" in such a list says that the argument may be left out. Where an example has
none, each expected value is the one accepted, and an argument equal to its default may be left out.

Source: Patil et al., The Berkeley Function Calling Leaderboard, ICML 2025, as its package bfcl-eval 2026.3.23 behaves
for Python: simple, multiple, parallel, parallel_multiple (live ones, too) and irrelevance. tests/test_bfcl.py compares
verdicts. Its ways are kept as they are: texts are equal but for case, spaces, quotes and , . / - _ * ^, inside of lists
and of objects one level down too, and exact below; types are looked at one level down; an object in a list is held
against the one at its place; parallel calls come in any order, and each that is due takes the first that fits.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from slimtune.data import Completion, Example, Score, ToolCall
from slimtune.scorers.tools import calls_text, expected_calls, why_unread

Options = Sequence[Any]  # the accepted values of one argument
_TYPES = {"string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict}
_LEFT_OUT = ""
_ALIKE = str.maketrans("'", '"', " ,./-_*^")


def bfcl_ast(completion: Completion, example: Example) -> Score:
    """1 when there are as many calls as are due and each fits an accepted one of its own. Where none is due, 1 for any
    answer of which no call can be read, a broken call too. `answer` is None when a call was due and none was read."""
    calls, expected = completion.tool_calls, expected_calls(example)
    if not calls and not expected:
        return Score(1.0, "")
    if calls is None:
        return Score(0.0, None, why_unread(completion))
    why = _fault(calls, example)
    return Score(float(not why), calls_text(calls), why)


def check_accepted(accepted: Any) -> None:
    """Raises ValueError, a clause about the row, for what is no list of {function: {argument: [values]}}."""
    for call in accepted if isinstance(accepted, list) else [None]:
        arguments = next(iter(call.values()), None) if isinstance(call, Mapping) and len(call) == 1 else None
        if not isinstance(arguments, Mapping) or not all(isinstance(values, list) for values in arguments.values()):
            raise ValueError("has an 'accepted' that is no list of {function: {argument: [values that count]}}")


def _fault(calls: Sequence[ToolCall], example: Example) -> str:
    """What is wrong with the calls; empty when nothing is."""
    functions = {function.get("name"): function for function in (tool.get("function", tool) for tool in example.tools)}
    due = expected_calls(example)
    accepted = example.meta.get("accepted") or [_accepted(call, functions.get(call.name, {})) for call in due]
    if len(calls) != len(accepted):
        return f"made {len(calls)} calls where {len(accepted)} are due"
    waiting = list(calls)
    for (name, options), *_ in (one.items() for one in accepted):
        faults = []
        for place, call in enumerate(waiting):
            if not (fault := _call_fault(call, name, options, functions.get(name, {}))):
                del waiting[place]
                break
            faults.append(fault)
        else:
            return faults[0] if len(calls) == 1 else f"no call is right for {name}: the first {faults[0]}"
    return ""


def _call_fault(call: ToolCall, name: str, accepted: Mapping[str, Options], function: Mapping[str, Any]) -> str:
    if call.name != name:
        return f"called {call.name} instead of {name}"
    parameters = function.get("parameters") or {}
    schemas = parameters.get("properties") or {}
    for argument in parameters.get("required") or ():
        if argument not in call.arguments:
            return f"left out {argument} of {name}"
    for argument, value in call.arguments.items():
        if argument not in schemas or argument not in accepted:
            return f"gave {argument} to {name}, which is not accepted there"
        if not _is_accepted(value, accepted[argument], schemas[argument]):
            return f"gave {name} a wrong {argument}"
    for argument, options in accepted.items():
        if argument not in call.arguments and _LEFT_OUT not in options:
            return f"left out {argument} of {name}"
    return ""


def _is_accepted(value: Any, options: Options, schema: Any) -> bool:
    """Whether a value has the type of its schema and is one of `options`. Where these are of another type than the
    schema says, that type is right too, and the value is compared as it stands."""
    meant = next((type(option) for option in options if option != _LEFT_OUT), None)
    due = _type_in(schema) or meant or type(value)
    given = float if due is float and type(value) is int else type(value)
    if given is not due:
        return given is meant and value in options
    inner = _type_in(schema.get("items")) if due is list else None
    if inner is not None and not _items_fit(value, options, inner):
        return False
    if meant is not None and meant is not due:
        return value in options
    if due is dict:
        return _object_fits(value, options)
    if due is list and not value and _LEFT_OUT in options:
        return True
    if inner is dict:
        return any(_objects_fit(value, option) for option in options)
    return _list_alike(value) in map(_list_alike, options) if due is list else _alike(value) in map(_alike, options)


def _type_in(schema: Any) -> type | None:
    """The type that a schema names; None where it names none, or several."""
    said = schema.get("type") if isinstance(schema, Mapping) else None
    return _TYPES.get(said) if isinstance(said, str) else None


def _items_fit(values: list[Any], options: Options, inner: type) -> bool:
    """Whether every item has the type `inner`, or that of the items of one and the same option."""
    for option in options:
        meant = next((type(item) for item in option if item != _LEFT_OUT), inner) if isinstance(option, list) else None
        if meant is None or all(type(value) in (inner, meant) for value in values):
            return True
    return False


def _object_fits(value: Mapping[str, Any], options: Options) -> bool:
    """Whether an object is one of `options`, each {key: [values that count]}."""
    return any(
        all(key in option and _alike(item) in map(_alike, _listed(option[key])) for key, item in value.items())
        and all(key in value or _LEFT_OUT in _listed(items) for key, items in option.items())
        for option in options
        if isinstance(option, Mapping)
    )


def _objects_fit(values: list[Any], option: Any) -> bool:
    if not isinstance(option, list) or len(values) != len(option):
        return False
    pairs = zip(values, option, strict=True)
    return all(isinstance(value, dict) and _object_fits(value, [due]) for value, due in pairs)


def _alike(value: Any) -> Any:
    """What texts that count as equal have in common; any other value as it is."""
    return value.lower().translate(_ALIKE) if isinstance(value, str) else value


def _list_alike(value: Any) -> Any:
    return [_alike(item) for item in value] if isinstance(value, list) else value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _accepted(call: ToolCall, function: Mapping[str, Any]) -> dict[str, dict[str, list[Any]]]:
    """An expected call in the form of `meta["accepted"]`: its values, and defaults, which may be left out."""
    schemas = (function.get("parameters") or {}).get("properties") or {}
    accepted: dict[str, list[Any]] = {}
    for name in (*call.arguments, *(name for name in schemas if name not in call.arguments)):
        schema = schemas.get(name)
        default = [schema["default"]] if isinstance(schema, Mapping) and "default" in schema else []
        values = [call.arguments[name]] if name in call.arguments else default
        if values:
            accepted[name] = [_as_option(values[0], schema), *([_LEFT_OUT] if values == default else [])]
    return {call.name: accepted}


def _as_option(value: Any, schema: Any) -> Any:
    """A value in the form of an option: objects say for each key the list of values that count."""
    if isinstance(value, Mapping):
        return {key: [item] for key, item in value.items()}
    if isinstance(value, list) and _type_in(schema) is list and _type_in(schema.get("items")) is dict:
        return [_as_option(item, None) for item in value]
    return value
