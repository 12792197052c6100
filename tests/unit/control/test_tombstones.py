"""When an instance that was released counts as gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.control.tombstones import is_absent, is_down, is_heard, is_over, is_unseen
from heliostat.model.instance import BackendInstance, BackendState, InstanceIntent, Intent
from heliostat.model.snapshot import BackendView

WANTED = InstanceIntent("la.0", "la", "cpu", "fake", "s", Intent.WANTED, 0.0, "demand")
RELEASED = replace(WANTED, intent=Intent.RELEASED, released_at_s=100.0)
ROWS = tuple(BackendInstance(one, one, "cpu", BackendState.ENDED) for one in ("la.0", "lb.0"))
EMPTY = BackendView((), 101.0, fresh=True)


def over(at_s: float, *, absent_since_s: float | None) -> bool:
    return is_over(RELEASED, replace(EMPTY, listed_at_s=at_s), absent_since_s=absent_since_s, late_s=30.0)


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
    late = [over(at_s, absent_since_s=90.0) for at_s in (129.0, 130.0)]
    assert late == [False, True]
    assert not is_over(WANTED, EMPTY, absent_since_s=90.0, late_s=0.0)


@pytest.mark.parametrize(
    ("since_s", "unseen"),
    [
        (72.0, True),
        (71.0, False),
        # No listing has begun since it was asked for.
        (None, True),
    ],
)
def test_a_listing_that_lags_may_lack_what_is_young(since_s: float | None, unseen: bool) -> None:
    assert is_unseen(EMPTY, since_s=since_s, late_s=30.0) is unseen


def test_it_counts_from_the_first_listing_that_lacked_it() -> None:
    assert [over(at_s, absent_since_s=110.0) for at_s in (139.0, 140.0)] == [False, True]
    assert not over(200.0, absent_since_s=None)


@pytest.mark.parametrize(
    ("view", "unclear_s", "down"),
    [
        (EMPTY, None, True),
        # A request that nobody answered may still be on its way.
        (EMPTY, 95.0, False),
        (replace(EMPTY, listed_at_s=124.0), 95.0, False),
        (replace(EMPTY, listed_at_s=125.0), 95.0, True),
        (replace(EMPTY, listed_at_s=125.0, rows=ROWS), 95.0, False),
        (replace(EMPTY, listed_at_s=125.0, fresh=False), 95.0, False),
        (None, 95.0, True),
    ],
)
def test_a_cluster_is_down_when_nothing_is_on_its_way_any_more(
    view: BackendView | None, unclear_s: float | None, down: bool
) -> None:
    assert is_down(RELEASED, view, unclear_s=unclear_s, late_s=30.0) is down


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
