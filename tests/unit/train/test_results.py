"""The accounts of a map: each item counts once and only once, whatever answers late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heliostat.train.results import MAX_TRIES, Attempt, Ledger
from heliostat.train.types import Dropped, Failure


def test_results_are_in_the_order_of_items() -> None:
    ledger = Ledger(3, Failure.RETRY)
    attempts = [ledger.give() for _ in range(3)]
    for attempt in reversed(attempts):
        assert ledger.answered(attempt, f"r{attempt.item}")
    assert ledger.done
    assert ledger.results() == ["r0", "r1", "r2"]


def test_no_items_are_done_at_once() -> None:
    assert Ledger(0, Failure.RAISE).done
    assert Ledger(0, Failure.RAISE).results() == []


def test_a_lost_item_is_given_again_and_its_late_answer_passed_over() -> None:
    ledger = Ledger(2, Failure.RETRY)
    first, other = ledger.give(), ledger.give()
    assert ledger.lost(first, "gone") is None
    again = ledger.give()
    assert again == Attempt(0, 2)
    assert not ledger.answered(first, "late")
    assert ledger.answered(again, "right")
    assert not ledger.answered(first, "later still")
    assert ledger.lost(first, "gone, once more") is None
    assert ledger.answered(other, "other")
    assert ledger.results() == ["right", "other"]


def test_an_item_may_not_cost_members_for_ever() -> None:
    ledger = Ledger(1, Failure.RETRY)
    for _ in range(MAX_TRIES - 1):
        assert ledger.lost(ledger.give(), "gone") is None
    assert ledger.lost(ledger.give(), "killed") == "item 0 has cost 3 members, the last: killed"


def test_a_loss_that_may_not_be_the_item_s_fault_does_not_count() -> None:
    ledger = Ledger(1, Failure.RETRY)
    for _ in range(5 * MAX_TRIES):
        assert ledger.lost(ledger.give(), "unavailable", blameless=True) is None
    for _ in range(MAX_TRIES - 1):
        assert ledger.lost(ledger.give(), "gone") is None
    assert ledger.lost(ledger.give(), "gone") is not None


def test_drop_and_raise() -> None:
    dropping = Ledger(3, Failure.DROP)
    assert dropping.lost(dropping.give(), "gone") is None
    assert dropping.answered(dropping.give(), 1)
    dropping.drop_waiting("nobody is left")
    assert dropping.results() == [Dropped(0, "gone"), 1, Dropped(2, "nobody is left")]
    raising = Ledger(1, Failure.RAISE)
    assert raising.lost(raising.give(), "gone") == "item 0: gone"


@given(st.integers(1, 8), st.sampled_from([Failure.RETRY, Failure.DROP]), st.data())
def test_each_item_counts_once(count: int, on_failure: Failure, data: st.DataObject) -> None:
    ledger = Ledger(count, on_failure)
    given_out: list[Attempt] = []
    counted: dict[int, int] = {}
    current: dict[int, Attempt] = {}
    for _ in range(data.draw(st.integers(0, 60))):
        what = data.draw(st.sampled_from(["give", "answer", "lose"]))
        if what == "give" and ledger.waits:
            attempt = ledger.give()
            assert attempt.item not in current
            current[attempt.item] = attempt
            given_out.append(attempt)
        elif given_out:
            attempt = data.draw(st.sampled_from(given_out))
            is_current = current.get(attempt.item) == attempt
            if what == "answer":
                counts = ledger.answered(attempt, attempt)
                assert counts is is_current
                counted[attempt.item] = counted.get(attempt.item, 0) + counts
            elif ledger.lost(attempt, "gone") is not None:
                return
            if is_current:
                del current[attempt.item]
    while ledger.waits or current:
        attempt = ledger.give() if ledger.waits else current[next(iter(current))]
        current.pop(attempt.item, None)
        counted[attempt.item] = counted.get(attempt.item, 0) + ledger.answered(attempt, attempt)
    assert ledger.done
    results = ledger.results()
    assert [one.item for one in results] == list(range(count))
    kept = {one.item for one in results if isinstance(one, Attempt)}
    assert {item for item, times in counted.items() if times} == kept
    assert all(times <= 1 for times in counted.values())
