"""Which Ray versions this one is made for and tested with: the bounds of tools/ray-versions.txt."""

from __future__ import annotations

import re

from heliostat.ports.errors import HeliostatError

OLDEST = (2, 56)
NEWEST = (2, 60)


def supported_words() -> str:
    """Return the range for people."""
    return f"{_text(OLDEST)} to {_text(NEWEST)}"


def version_note(version: str) -> str:
    """Return what is to be said of this Ray version, empty for a supported one.

    Raises HeliostatError for one that is too old, or is no version at all: nothing would work.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    release = (int(found[1]), int(found[2])) if found else (0, 0)
    if release < OLDEST:
        raise HeliostatError(f"Ray {version} is not supported: install one from {supported_words()}")
    if release > NEWEST:
        return f"Ray {version} is newer than what this version was tested with ({supported_words()})"
    return ""


def _text(release: tuple[int, int]) -> str:
    return ".".join(map(str, release))
