"""When an instance that was given up is really gone: listings say so, never a guess. Pure."""

from __future__ import annotations

from collections.abc import Collection

from heliostat.model.instance import InstanceIntent
from heliostat.model.snapshot import BackendView


def is_absent(intent: InstanceIntent, view: BackendView | None) -> bool:
    """Say whether a fresh listing that began after the release has no row of the instance.

    A backend that the file no longer has (None) can't be asked: its instances end by
    themselves, as orphans do.
    """
    if view is None:
        return True
    return (
        view.fresh and intent.instance_id not in view.ids and view.listed_at_s > (intent.released_at_s or 0.0)
    )


def is_heard(view: BackendView, known: Collection[str]) -> bool:
    """Say whether a backend has been listed since this controller began, and all of that is `known`.

    What the journal has lost is known by a listing alone.
    """
    return view.listed_at_s > 0 and view.ids.issubset(known)


def is_over(intent: InstanceIntent, view: BackendView | None, *, tombstone_s: float) -> bool:
    """Say whether a released instance has been absent so long that no late reply brings it back."""
    if intent.released_at_s is None or not is_absent(intent, view):
        return False
    return view is None or view.listed_at_s >= intent.released_at_s + tombstone_s
