"""Ends the driver when its gateway is silent, where the end of a pipe is told by nobody.

A step of a job goes on with its pipes open when its `srun` was killed, and so does what ssh began behind a
network that broke. On the gateway's own host the kernel tells, and a gateway that is stopped for a while
keeps its calls. A driver that hangs itself hears nothing either, and has to end as well: so a thread of
Python's own ends it, which needs nothing of the driver's.
"""

from __future__ import annotations

import faulthandler
import os

FAR = "--far"
"""Tells the driver that its gateway is on another host."""

SILENT_S = 60.0
"""A gateway asks every 5 s, and gives up a driver that has not answered for 20 s."""

# Its standard error may be a pipe that nobody empties: who writes there waits for ever.
_NOWHERE = open(os.devnull, "w")  # noqa: SIM115


def heard() -> None:
    """Let this process live for `SILENT_S` from now on."""
    faulthandler.dump_traceback_later(SILENT_S, exit=True, file=_NOWHERE)
