"""Why a machine ended, and with it the Ray node on it: what decides whose fault lost work is."""

from __future__ import annotations

from enum import Enum


class Cause(Enum):
    """The first thing that was sure to end a machine.

    RELEASED: a provider was told to terminate it. DRAINED: Ray let it go, nothing was on it any more.
    LEASE: its time was over. PREEMPTED: the site or the market took it. DIED: the hardware failed.
    EXITED: its start failed. TWIN: another machine had its instance id already. STRANGER: the cluster
    that answered was not its own. ORPHANED: no controller was heard. HEAD: the head was gone for good.
    """

    RELEASED = "released"
    DRAINED = "drained"
    LEASE = "lease"
    PREEMPTED = "preempted"
    DIED = "died"
    EXITED = "exited"
    TWIN = "twin"
    STRANGER = "stranger"
    ORPHANED = "orphaned"
    HEAD = "head"
