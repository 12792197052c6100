"""Values of a cluster file that the backend's keys are made of: text, sizes, counts. Pure."""

from __future__ import annotations

import json
import math
import re
from typing import Any

SIZES = {
    "": 1,
    "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
    "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40,
}  # fmt: skip
SAID_CHARS = 60
# Names of Slurm's things go into comma-separated lists and into listings.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+:-]*")
NAME_RULE = "a name of letters, digits and _ . @ + : -"


class Wrong(Exception):
    """A value that is not allowed; `path` leads to it within its key."""

    def __init__(self, found: object, allowed: str, *path: str) -> None:
        super().__init__(f"{found!r}; allowed: {allowed}")
        self.found, self.allowed, self.path = found, allowed, path


def said(value: object) -> str:
    """Return a value as a person would have written it in the file, shortened."""
    written = json.dumps(value, ensure_ascii=False, default=str)
    return written if len(written) <= SAID_CHARS else written[: SAID_CHARS - 1] + "…"


def parse_bytes(value: object) -> int | None:
    """Return the bytes of `1024`, `"8GiB"`, `"500 MB"`; None if it is no such thing."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value > 0 else None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", str(value).strip().lower())
    if not found or found[2] not in SIZES:
        return None
    return int(float(found[1]) * SIZES[found[2]]) or None


def size(value: object) -> int:
    found = parse_bytes(value)
    if found is None:
        raise Wrong(value, 'a number of bytes, or a size such as "64GiB"')
    return found


def text(value: object) -> str:
    """Return text of one line that is no option: it becomes an argument of a command."""
    if isinstance(value, str) and value.strip() and value.isprintable() and not value.startswith("-"):
        return value
    raise Wrong(value, "text of one line that does not begin with -, in quotes where it looks like a number")


def name(value: object) -> str:
    if isinstance(value, str) and NAME.fullmatch(value):
        return value
    raise Wrong(value, f"{NAME_RULE}, in quotes where it looks like a number")


def names(value: object) -> tuple[str, ...]:
    """Return one name, a list of them, or names with commas between, as a tuple."""
    if isinstance(value, str):
        listed: list[object] = list(value.split(","))
    elif isinstance(value, list | tuple) and value:
        listed = list(value)
    else:
        raise Wrong(value, f"{NAME_RULE}, or a list of such names")
    for index, one in enumerate(listed):
        if not isinstance(one, str) or not NAME.fullmatch(one):
            path = [] if isinstance(value, str) else [str(index)]
            raise Wrong(one, f"{NAME_RULE}, in quotes where it looks like a number", *path)
    return tuple(str(one) for one in listed)


def texts(value: object, *, of_what: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise Wrong(value, f"a list of text, {of_what}")
    for index, one in enumerate(value):
        if not isinstance(one, str) or not one:
            raise Wrong(one, "text, so put it in quotes", str(index))
    return tuple(value)


def mapping(value: object, allowed: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Wrong(value, allowed)
    return dict(value)


def truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise Wrong(value, "true or false")


def count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise Wrong(value, "a whole number, 1 or more")


def absolute_path(value: object) -> str:
    if isinstance(value, str) and value.startswith("/") and value.isprintable():
        return value
    raise Wrong(value, "an absolute path")


def is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
