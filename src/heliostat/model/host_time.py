"""How the controller's clock stands to its host's: it never follows it, so that jumps do no harm. Pure."""

from __future__ import annotations

from dataclasses import dataclass

JUMPED_S = 10.0
"""A change by more is worth words. Corrections of NTP that are smaller are everyday life."""

MOVED_S = 1.0
"""What has moved by less is as it was, so that quiet rounds have nothing new to write down."""


@dataclass(frozen=True)
class HostTime:
    """`boot_id` names the boot of the host (empty: not known), which was at `booted_at_s` of the controller's
    clock; the host's wall clock is `ahead_s` ahead of that clock. All in Unix seconds."""

    boot_id: str
    booted_at_s: float
    ahead_s: float = 0.0


def begun(known: HostTime | None, *, boot_id: str, uptime_s: float, wall_s: float, latest_s: float) -> float:
    """Return the time at which a controller's clock begins that follows another, of which `known` is known.

    On the same boot it goes on as its predecessor's would have. On another one the host's wall clock is all
    that tells how long there was none; what is remembered, `latest_s` the last of it, stays in the past.
    """
    if known is not None and boot_id and known.boot_id == boot_id:
        return known.booted_at_s + uptime_s
    return max(wall_s - (known.ahead_s if known else 0.0), latest_s)


def noted(known: HostTime | None, seen: HostTime | None) -> HostTime | None:
    """Return what is remembered: what is seen, or what was known if that is nearly the same."""
    if seen is None or known is None:
        return seen or known
    moved_s = max(abs(seen.booted_at_s - known.booted_at_s), abs(seen.ahead_s - known.ahead_s))
    return known if seen.boot_id == known.boot_id and moved_s < MOVED_S else seen


def jump_text(before: HostTime | None, after: HostTime | None) -> str | None:
    """Return words for a host's clock that was set between two rounds, None if it was not.

    After another boot, perhaps of another host, the clock is another one.
    """
    if before is None or after is None or before.boot_id != after.boot_id:
        return None
    jumped_s = after.ahead_s - before.ahead_s
    if abs(jumped_s) <= JUMPED_S:
        return None
    side = "forward" if jumped_s > 0 else "back"
    return (
        f"this host's clock was set {side} by {abs(jumped_s):.0f} s: times of earlier events are shown by the"
        " new clock; no wait is longer or shorter for it"
    )
