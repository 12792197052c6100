"""Which versions of Ray are supported where its private parts are used: those that are tested."""

from __future__ import annotations

OLDEST, NEWEST = "2.56.1", "2.60.0"
"""As in tools/ray-versions.txt."""


def unsupported(version: str) -> str:
    """Return why a Ray of this version is not supported, empty if it is: a later patch of the newest is."""
    found = _numbers(version)
    if not found:
        return f"Ray {version} is of no known version; {OLDEST} to {NEWEST} are supported"
    if _numbers(OLDEST) <= found and found[:2] <= _numbers(NEWEST)[:2]:
        return ""
    return f"Ray {version} is installed, and {OLDEST} to {NEWEST} are supported"


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:3]
    digits = ["".join(one for one in part if one.isdigit()) for part in parts]
    return tuple(int(one) for one in digits) if all(digits) else ()
