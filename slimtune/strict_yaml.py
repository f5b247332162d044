"""YAML as data: a subset of the language in which nothing surprises.

Anchors, aliases, tags and duplicate keys are refused, sizes are capped, and plain scalars follow YAML 1.2: `5e-5` is a
number, `no`, `on` and `010` are words, `12:30` is a word. Every value keeps the line it came from.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from slimtune.errors import Problem, UserError

_MAX_BYTES = 256 * 1024
_MAX_DEPTH = 32
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}


@dataclass
class Document:
    """A YAML mapping, the line of every key in it (1-based), and what was refused."""

    value: dict[str, Any]
    lines: dict[tuple[str, ...], int | str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def parse_scalar(text: str) -> Any:
    """A plain scalar as YAML 1.2 reads it: null, true, false, an integer, a float, or the text itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and not re.fullmatch(r"[-+]?0[0-9]+", text):
        return float(text)
    return text


def parse_yaml(path: Path) -> Document:
    """Read a mapping from a YAML file. Raises UserError where there is no readable file, text or YAML."""
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    if path.stat().st_size > _MAX_BYTES:
        raise UserError(f"{path} is larger than {_MAX_BYTES // 1024} KiB: that is not a recipe.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
        problems = _refused(str(path), text)
        node = None if problems else yaml.compose(text, Loader=yaml.BaseLoader)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not YAML: {getattr(error, 'problem', None) or error}.") from error
    document = Document({}, {(): 1}, problems)
    if isinstance(node, yaml.MappingNode):
        document.value = _mapping(node, (), document, str(path))
    elif not problems:
        document.problems.append(Problem(str(path), "is not a mapping of keys to values."))
    return document


def _refused(path: str, text: str) -> list[Problem]:
    """Anchors, aliases and tags, and nesting beyond what a recipe needs; found before anything is built."""
    problems, depth = [], 0
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        where = f"{path}:{event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            problems.append(Problem(where, "uses a YAML anchor or alias.", "Write the value out."))
        elif getattr(event, "tag", None):
            problems.append(Problem(where, f"uses the YAML tag {event.tag}.", "Leave it out."))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            return [Problem(where, f"is nested more than {_MAX_DEPTH} deep.")]
    return problems


def _mapping(node: yaml.MappingNode, keys: tuple[str, ...], document: Document, path: str) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in value:
            first = document.lines[(*keys, key)]
            document.problems.append(Problem(f"{path}:{line} {'.'.join((*keys, key))}", f"stands in line {first} too."))
            continue
        document.lines[(*keys, key)] = line
        value[key] = _value(value_node, (*keys, key), document, path)
    return value


def _value(node: yaml.Node, keys: tuple[str, ...], document: Document, path: str) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, keys, document, path)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*keys, str(index)), document, path) for index, item in enumerate(node.value)]
    return node.value if node.style else parse_scalar(node.value)
