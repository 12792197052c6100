"""`provider.max_draining`: a number, a percentage, or a list of both with reasons and hours."""

from __future__ import annotations

import re
from typing import Any

from heliostat.config.errors import KeyPath, did_you_mean, found, one_of
from heliostat.model.drain_limit import MINUTES_A_DAY, VOLUNTARY, DrainLimit

NODES = 'a whole number, 0 or more, or a percentage such as "10%"'
ALLOWED = f"{NODES}, or a list such as [{{nodes: 2, reasons: [drift], hours: 08:00-18:00}}]"
_REASONS = f"a list of {one_of(VOLUNTARY)}"
_HOURS = "text such as 08:00-18:00, from 00:00 to 24:00, over midnight where the second is the earlier one"
_KEYS = ("nodes", "reasons", "hours")
_TIME = r"([01]\d|2[0-4]):([0-5]\d)"

Wrong = tuple[KeyPath, str]
"""Where below the key, and «what was found; what is allowed»."""


def drain_limits(value: Any) -> tuple[tuple[DrainLimit, ...], list[Wrong]]:
    """Return the limits, which are right where nothing is wrong. An empty list limits nothing."""
    if not isinstance(value, list):
        limit, wrong = _nodes(value, (), ALLOWED)
        return (limit,), wrong
    limits, problems = [], list[Wrong]()
    for index, one in enumerate(value):
        limit, wrong = _entry(one, index) if isinstance(one, dict) else _nodes(one, (index,), NODES)
        limits.append(limit)
        problems += wrong
    return tuple(limits), problems


def _entry(entry: dict[str, Any], index: int) -> tuple[DrainLimit, list[Wrong]]:
    problems: list[Wrong] = [
        ((index, key), f"unknown key{did_you_mean(str(key), _KEYS)}; allowed are {one_of(_KEYS)}")
        for key in entry
        if key not in _KEYS
    ]
    limit = DrainLimit()
    if "nodes" in entry:
        limit, wrong = _nodes(entry["nodes"], (index, "nodes"), NODES)
        problems += wrong
    else:
        problems.append(((index, "nodes"), f"is missing; write {NODES}"))
    reasons, hours = entry.get("reasons", list(VOLUNTARY)), None
    if not _is_reasons(reasons):
        problems.append(((index, "reasons"), f"{found(reasons)}; allowed is {_REASONS}"))
        reasons = []
    if "hours" in entry and (hours := _hours(entry["hours"])) is None:
        problems.append(((index, "hours"), f"{found(entry['hours'])}; allowed is {_HOURS}"))
    chosen = frozenset(reasons) if "reasons" in entry else frozenset[str]()
    return DrainLimit(limit.count, limit.percent, chosen, hours), problems


def _nodes(value: Any, path: KeyPath, allowed: str) -> tuple[DrainLimit, list[Wrong]]:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return DrainLimit(value), []
    percent = re.fullmatch(r"(\d{1,3})%", value) if isinstance(value, str) else None
    if percent and int(percent[1]) <= 100:
        return DrainLimit(percent=int(percent[1])), []
    return DrainLimit(), [(path, f"{found(value)}; allowed is {allowed}")]


def _is_reasons(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(one in VOLUNTARY for one in value)


def _hours(value: Any) -> tuple[int, int] | None:
    span = re.fullmatch(f"{_TIME}-{_TIME}", value) if isinstance(value, str) else None
    if span is None:
        return None
    first, last = (int(span[at]) * 60 + int(span[at + 1]) for at in (1, 3))
    # From a time until the same time could mean never or always.
    return (first, last) if first != last and first < MINUTES_A_DAY >= last else None
