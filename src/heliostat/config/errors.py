"""One problem of a cluster file, and the words for it: where, which key, what was found, what is allowed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]

FOUND_CHARS_MAX = 60


@dataclass(frozen=True, order=True)
class Position:
    """A place in a file; `line` counts from 1, and is 0 where there are no lines (the command line)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True)
class Problem:
    """`text` is «what was found; what is allowed»; `key` is empty for the file as a whole."""

    position: Position
    key: KeyPath
    text: str

    def __str__(self) -> str:
        where = f"{self.position}: "
        return where + (f"{dotted(self.key)}: {self.text}" if self.key else self.text)


def dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))


def lines(problems: Iterable[Problem]) -> list[str]:
    """Return the problems as lines for people, in the order of files and lines, each once."""
    ordered = sorted(problems, key=lambda problem: (problem.position, dotted(problem.key)))
    return list(dict.fromkeys(map(str, ordered)))


def found(value: object) -> str:
    """Say in a few words what a value is, as a person would have written it."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= FOUND_CHARS_MAX else text[: FOUND_CHARS_MAX - 1] + "…"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return « (did you mean …?)», or nothing when no known name is near."""
    by_lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f" (did you mean {by_lower[near[0]]}?)" if near else ""


def one_of(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed) if listed else "none"
