"""An older file's text in the new form, with its comments where they can be kept.

The text is changed where the meaning has a new form, and nowhere else. What comes out is read again: if it
does not mean the very same (anchors and merge keys can do that), the whole file is written anew instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import yaml

from heliostat.config.checks import BackendKeys
from heliostat.config.errors import lines
from heliostat.config.old_files import PORTS, read_old
from heliostat.config.positions import parse
from heliostat.ports.errors import ConfigError

MODULE = "heliostat.launcher.NodeProvider"
RENAMED = {**PORTS, "under_slurm": "backend", "init_commands": "setup"}
"""Old key → the one that takes its place, comments included."""


@dataclass(frozen=True)
class Migrated:
    """`notes` are lines for people: what has no meaning any more. `is_same`: it was of the new form."""

    text: str
    notes: tuple[str, ...]
    is_same: bool


@dataclass(frozen=True)
class Edit:
    """Whole lines `first` to `last` (from 0, `last` not included) become `text`, which may be empty."""

    first: int
    last: int
    text: str


def migrated(text: str, file: str, backends: Mapping[str, BackendKeys]) -> Migrated:
    """Return the file's text in the new form. Raises ConfigError where it means nothing."""
    document, problems = parse(text, file)
    if document is None or problems:
        raise ConfigError(lines(problems))
    reading = read_old(document, backends)
    if reading.problems:
        raise ConfigError(lines(reading.problems))
    if reading.document is document:
        return Migrated(text, (), is_same=True)
    new = reading.document.data
    new["provider"]["module"] = MODULE
    notes = lines(reading.notes)
    edited = _edited(text, document.data, new)
    again, wrong = parse(edited, file)
    if again is None or wrong or again.data != new:
        edited = _yaml(new)
        notes.append(f"{file}: the comments could not be kept")
    return Migrated(edited, tuple(notes), is_same=False)


def _edited(text: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    written = text.splitlines()
    edits = list(_Mapping(written, root).edits(old, new))
    for edit in sorted(edits, key=lambda one: (one.first, one.last), reverse=True):
        written[edit.first : edit.last] = edit.text.splitlines()
    return "\n".join(written) + "\n"


class _Mapping:
    """One block mapping of the text; what is in braces is written anew as a whole."""

    def __init__(self, written: list[str], node: yaml.MappingNode) -> None:
        self._written = written
        self._node = node
        self._entries = {
            key.value: (key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)
        }

    def edits(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Edit]:
        """Yield the changes that make of `old`, which is what it means, `new`."""
        added = {key: value for key, value in new.items() if key not in old}
        for key, (_, value) in self._entries.items():
            successor = RENAMED.get(key, key)
            if key in new and new[key] == old.get(key):
                continue
            if key in new and _is_block_mapping(value) and new[key]:
                yield from _Mapping(self._written, value).edits(old[key], new[key])
            elif key not in new and successor in added:
                yield from self._renamed(key, successor, added.pop(successor))
            elif key in new:
                yield self._replaced(key, key, new[key])
            else:
                yield self._replaced(key, "", None)
        if added:
            end = max(_end_line(value) + 1 for _, value in self._entries.values())
            yield Edit(end, end, _dumped(added, self._node.start_mark.column))

    def _replaced(self, key: str, name: str, value: object) -> Edit:
        """Return the change of one entry; the comment behind a value of one line stays. No name: it goes."""
        key_node, value_node = self._entries[key]
        first, end = key_node.start_mark.line, _end_line(value_node)
        if not name:
            return Edit(first, end + 1, "")
        text = _dumped({name: value}, key_node.start_mark.column)
        tail = self._written[end][value_node.end_mark.column :] if end == value_node.end_mark.line else ""
        return Edit(first, end + 1, text + (tail if "\n" not in text else ""))

    def _renamed(self, key: str, name: str, value: Any) -> Iterator[Edit]:
        """Yield the changes of an entry that goes on under another name, a list with lines of ours ahead."""
        key_node, items = self._entries[key]
        if not _is_block_list(items):
            yield self._replaced(key, name, value)
            return
        line, column = key_node.start_mark.line, key_node.start_mark.column
        yield Edit(line, line + 1, f"{' ' * column}{name}:")
        ahead, at = _yaml(value[: len(value) - len(items.value)]), items.value[0].start_mark.line
        indent = " " * items.start_mark.column
        yield Edit(at, at, "\n".join(indent + one for one in ahead.splitlines()))


def _is_block_mapping(node: yaml.Node) -> TypeGuard[yaml.MappingNode]:
    return isinstance(node, yaml.MappingNode) and not node.flow_style


def _is_block_list(node: yaml.Node) -> TypeGuard[yaml.SequenceNode]:
    return isinstance(node, yaml.SequenceNode) and not node.flow_style and bool(node.value)


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as such, and list items a step further in than their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else '"' if TIME.fullmatch(value) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


TIME = re.compile(r"[\d-]*\d+(:\d+)+")
"""Without quotes some are numbers in YAML and some are not, so that a person who changes one is misled."""

_Dumper.add_representer(str, _represent_text)


def _yaml(value: object) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000))


def _dumped(values: Mapping[str, Any], column: int) -> str:
    return "\n".join(" " * column + line if line else line for line in _yaml(dict(values)).splitlines())


def _end_line(node: yaml.Node) -> int:
    """Return the last line (from 0) of a value, without the comments and empty lines that follow it."""
    children = node.value if isinstance(node, yaml.CollectionNode) and not node.flow_style else []
    if children:
        last = children[-1]
        return _end_line(last[1] if isinstance(last, tuple) else last)
    ends_before = node.end_mark.column == 0 and node.end_mark.line > node.start_mark.line
    return node.end_mark.line - 1 if ends_before else node.end_mark.line
