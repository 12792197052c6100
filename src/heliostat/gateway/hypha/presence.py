"""Whether a client that waits for a call is still there."""

from __future__ import annotations

from enum import Enum


class Presence(Enum):
    """What a look at a client has found."""

    THERE = "there"
    SILENT = "silent"
    """No answer in time: it is busy, or the server has forgotten that it ever was."""
    GONE = "gone"
    """The server says that it is not connected."""


ABSENCE = {Presence.THERE: 0, Presence.SILENT: 1, Presence.GONE: 3}
ABSENCE_MAX = 6
"""Looks in a row add up to this for a client that has gone for good: two without, six without an answer."""
