"""What is said at the start of a Ray version that is not supported: a newer one may work."""

from __future__ import annotations

import re

from heliostat.ports.errors import HeliostatError
from heliostat.raylink.supported import NEWEST, unsupported


def version_note(version: str) -> str:
    """Return what is to be said of this Ray version, empty for a supported one.

    Raises HeliostatError for one that is too old, or is no version at all: nothing would work.
    """
    why = unsupported(version)
    if why and _release(version) <= _release(NEWEST):
        raise HeliostatError(why)
    return f"{why}: a newer one was not tested" if why else ""


def _release(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)
