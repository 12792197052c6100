"""Times for people: `30m` read, seconds written. Pure: «now» is an argument."""

from __future__ import annotations

import re

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)\s*")
LONGEST_S = 366 * 86_400.0


def parse_duration(text: str) -> float:
    """Return the seconds of `90s`, `30m`, `1h30m`, `2d` or a bare number; ValueError says what is wrong."""
    rest = text.strip().lower()
    if not rest:
        raise ValueError("a duration is expected, like 90s, 30m or 1h30m")
    total_s = 0.0
    position = 0
    while position < len(rest):
        part = _PART.match(rest, position)
        if part is None or (part[2] == "" and part[0] != rest):
            raise ValueError(f"{text!r} is no duration: write 90s, 30m, 1h30m or 2d")
        if part[2] and part[2] not in _UNITS_S:
            raise ValueError(f"{text!r} has the unit {part[2]!r}; s, m, h and d are known")
        total_s += float(part[1]) * _UNITS_S[part[2] or "s"]
        position = part.end()
    if total_s > LONGEST_S:
        raise ValueError(f"{text!r} is over a year")
    return total_s


def humanise(seconds: float) -> str:
    """Return `seconds` in the two largest units that matter: `45 s`, `12 min`, `3 h 10 min`, `2 d 4 h`."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return _joined((hours, "h"), (minutes, "min"))
    days, hours = divmod(hours, 24)
    return _joined((days, "d"), (hours, "h"))


def since(at_s: float, *, now_s: float) -> str:
    """Return how long ago `at_s` was, both in Unix seconds; a clock that lags shows `0 s`."""
    return humanise(now_s - at_s)


def _joined(*parts: tuple[int, str]) -> str:
    return " ".join(f"{amount} {unit}" for amount, unit in parts if amount)
