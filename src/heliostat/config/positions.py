"""YAML into plain JSON values, with the line of every key.

What comes out equals `yaml.safe_load`, as Ray reads the same file; what that function
lets pass and no cluster file can mean (a key twice, a date, an alias to itself) is
a problem with its line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from heliostat.config.errors import KeyPath, Position, Problem

VALUES_MAX = 50_000
"""Values in one file, aliases counted each time: a few nested aliases can mean billions."""

_MAP = "tag:yaml.org,2002:map"
_SEQ = "tag:yaml.org,2002:seq"
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class Document:
    """A mapping and the place of each of its keys, list items included."""

    data: dict[str, Any]
    positions: Mapping[KeyPath, Position]

    def at(self, path: KeyPath) -> Position:
        """Return the place of `path`, or of the nearest thing around it that is in a file."""
        while path and path not in self.positions:
            path = path[:-1]
        return self.positions[path]


def parse(text: str, file: str) -> tuple[Document | None, list[Problem]]:
    """Read one YAML document that must be a mapping.

    The document is None where nothing can be said about its keys (bad syntax, empty, a
    list); otherwise it is complete but for the keys that the problems name.
    """
    top = Position(file, 1)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, [
                Problem(top, (), "the file is empty; a cluster file is a mapping of keys to values")
            ]
        if not isinstance(node, yaml.MappingNode):
            kind = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
            return None, [
                Problem(top, (), f"the file holds {kind}; a cluster file is a mapping (key: value)")
            ]
        reader = _Reader(loader, file)
        data = reader.mapping(node, ())
        return Document(data, {(): top, **reader.positions}), reader.problems
    except yaml.YAMLError as error:
        return None, [_syntax_problem(error, text, file)]
    except RecursionError:
        return None, [
            Problem(top, (), "values are nested too deep to be read; a cluster file has few levels")
        ]


def spread(data: Mapping[str, Any], position: Position) -> Document:
    """Make a document of values that are in no file; every key has the same place."""
    positions: dict[KeyPath, Position] = {}

    def visit(values: Mapping[str, Any], path: KeyPath) -> None:
        for key, value in values.items():
            positions[(*path, key)] = position
            if isinstance(value, Mapping):
                visit(value, (*path, key))

    visit(data, ())
    return Document(dict(data), positions)


def layered(near: Document, far: Document) -> Document:
    """Lay `near` over `far`: mappings are joined key by key, of anything else the near one wins.

    Near keys come first and keep their order; every key keeps its own place.
    """
    taken: list[KeyPath] = [()]
    data = _join(near.data, far.data, path=(), taken=taken)
    borrowed = {
        path: position
        for path, position in far.positions.items()
        if any(path[: len(prefix)] == prefix for prefix in taken[1:])
    }
    root: dict[KeyPath, Position] = {(): far.positions[()]} if () in far.positions else {}
    return Document(data, {**root, **borrowed, **near.positions})


def _join(
    near: Mapping[str, Any], far: Mapping[str, Any], *, path: KeyPath, taken: list[KeyPath]
) -> dict[str, Any]:
    joined = dict(near)
    for key, value in far.items():
        here = (*path, key)
        if key not in near:
            joined[key] = value
            taken.append(here)
        elif isinstance(near[key], dict) and isinstance(value, dict):
            joined[key] = _join(near[key], value, path=here, taken=taken)
    return joined


class _Reader:
    """One pass over the nodes of a file; collects values, places and problems."""

    def __init__(self, loader: yaml.SafeLoader, file: str) -> None:
        self.positions: dict[KeyPath, Position] = {}
        self.problems: list[Problem] = []
        self._loader = loader
        self._file = file
        self._open: set[int] = set()
        self._checked: set[int] = set()
        self._values = 0

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        self._refuse_doubles(node, path)
        self._loader.flatten_mapping(node)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is not None:
                self.positions[(*path, key)] = self._place(key_node)
                result[key] = self._value(value_node, (*path, key))
        return result

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._values += 1
        if self._values > VALUES_MAX:
            raise yaml.composer.ComposerError(
                None, None, f"more than {VALUES_MAX} values, aliases included", node.start_mark
            )
        if id(node) in self._open:
            self._problem(node, path, "an alias to a value that contains it; write the value out")
            return None
        self._open.add(id(node))
        try:
            return self._plain(node, path)
        finally:
            self._open.discard(id(node))

    def _plain(self, node: yaml.Node, path: KeyPath) -> Any:
        if isinstance(node, yaml.MappingNode) and node.tag == _MAP:
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQ:
            return [self._item(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self._problem(
            node, path, f"a value with the tag {node.tag}; only plain mappings and lists are allowed"
        )
        return None

    def _item(self, node: yaml.Node, path: KeyPath) -> Any:
        self.positions[path] = self._place(node)
        return self._value(node, path)

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        try:
            value = self._loader.construct_object(node)
        except ValueError:
            value = NotImplemented
        finite = not isinstance(value, float) or math.isfinite(value)
        if value is None or (isinstance(value, str | bool | int | float) and finite):
            return value
        self._problem(
            node,
            path,
            f"{node.value} is neither text, a finite number nor true/false; quote it if it is text",
        )
        return None

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        key = self._scalar(node, path) if isinstance(node, yaml.ScalarNode) else None
        if isinstance(key, str):
            return key
        shown = node.value if isinstance(node, yaml.ScalarNode) else "a list or mapping"
        self._problem(node, path, f"{shown} as a key; keys are text, so put it in quotes")
        return None

    def _refuse_doubles(self, node: yaml.MappingNode, path: KeyPath) -> None:
        # An aliased mapping comes by again after its merge keys were written out into it:
        # what is then double is meant so.
        if id(node) in self._checked:
            return
        self._checked.add(id(node))
        first: dict[str, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _MERGE:
                continue
            line = key_node.start_mark.line + 1
            if key_node.value in first:
                text = f"the key is there twice, first on line {first[key_node.value]}; keep one of them"
                self._problem(key_node, (*path, key_node.value), text)
            first.setdefault(key_node.value, line)

    def _place(self, node: yaml.Node) -> Position:
        return Position(self._file, node.start_mark.line + 1)

    def _problem(self, node: yaml.Node, path: KeyPath, text: str) -> None:
        self.problems.append(Problem(self._place(node), path, text))


def _syntax_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        words = " ".join(part for part in (error.context, error.problem) if part)
        if "'\\t'" in words:
            words = "a tab where YAML allows none; indent with spaces"
        return Problem(Position(file, line), (), f"not valid YAML: {words}")
    offset = getattr(error, "position", 0)
    line = text.count("\n", 0, offset) + 1
    reason = getattr(error, "reason", str(error))
    return Problem(Position(file, line), (), f"not valid YAML: {reason}")
