"""When an instance that was released counts as gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.control.tombstones import is_absent, is_heard, is_over
from heliostat.model.instance import BackendInstance, BackendState, InstanceIntent, Intent
from heliostat.model.snapshot import BackendView

WANTED = InstanceIntent("la.0", "la", "cpu", "fake", "s", Intent.WANTED, 0.0, "demand")
RELEASED = replace(WANTED, intent=Intent.RELEASED, released_at_s=100.0)
ROWS = tuple(BackendInstance(one, one, "cpu", BackendState.ENDED) for one in ("la.0", "lb.0"))
EMPTY = BackendView((), 101.0, fresh=True)


@pytest.mark.parametrize(
    ("view", "absent"),
    [
        (EMPTY, True),
        (replace(EMPTY, rows=ROWS[1:]), True),
        # What has ended and is still listed is no ghost yet.
        (replace(EMPTY, rows=ROWS), False),
        (replace(EMPTY, fresh=False), False),
        # It began before the release.
        (replace(EMPTY, listed_at_s=100.0), False),
        (None, True),
    ],
)
def test_it_is_absent_from_a_fresh_listing_that_began_after_its_release(
    view: BackendView | None, absent: bool
) -> None:
    assert is_absent(RELEASED, view) is absent


def test_it_is_over_once_a_late_reply_could_not_bring_it_back() -> None:
    late = [is_over(RELEASED, replace(EMPTY, listed_at_s=at_s), tombstone_s=30.0) for at_s in (129.0, 130.0)]
    assert late == [False, True]
    assert not is_over(WANTED, EMPTY, tombstone_s=0.0)


def test_a_listings_rows_are_read_once_however_many_are_released() -> None:
    view = BackendView(ROWS, 101.0, fresh=True)
    assert view.ids == {"la.0", "lb.0"}
    assert view.ids is view.ids
    assert view == BackendView(ROWS, 101.0, fresh=True)


def test_a_backend_is_heard_when_all_that_it_lists_is_known() -> None:
    assert is_heard(EMPTY, ())
    assert not is_heard(BackendView(), ())
    assert not is_heard(replace(EMPTY, rows=ROWS), {"la.0"})
    assert is_heard(replace(EMPTY, rows=ROWS, fresh=False), {"la.0", "lb.0", "lc.0"})
