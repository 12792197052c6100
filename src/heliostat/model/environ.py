"""What the system shows of a process's environment, /proc/PID/environ. Pure."""

from __future__ import annotations

import re

_ENTRY = re.compile(rb"[A-Za-z_][\w.-]*(%%|\(\))?=")
"""A variable, an exported function of bash's among them; hardly ever the end of a title."""


def is_overwritten(environ: bytes) -> bool:
    """Say whether a process's new title is where its environment was, or it never had any.

    Ray's agents and workers change theirs. That takes the room from the first entry on, and leaves
    as many of the last as there are behind the first that had been set again: any tag may be among
    the lost or the kept (seen with Ray 2.60: 8 to 46 of some 55 left).
    """
    return _ENTRY.match(environ) is None
