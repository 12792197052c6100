"""The state table: total, and the rows that people's work hangs on, one by one."""

from __future__ import annotations

from itertools import product

import pytest

from heliostat.model.instance import ALIVE, ON_THE_WAY, BackendState, InstanceState, Intent, NodeStatus
from heliostat.model.states import RULES, TRANSITIONS, derive

EVERY = list(product(Intent, BackendState, NodeStatus))
LIVING = {InstanceState.STARTING, InstanceState.RUNNING, InstanceState.DRAINING}


def test_every_combination_has_a_state() -> None:
    assert {derive(*one) for one in EVERY} == set(InstanceState)


def test_every_rule_is_the_first_to_match_somewhere() -> None:
    def first(intent: Intent, backend: BackendState, node: NodeStatus) -> int:
        for index, (i, b, n, _) in enumerate(RULES):
            if (i in {None, intent}) and (b is None or backend in b) and (n is None or node in n):
                return index
        raise AssertionError

    assert {first(*one) for one in EVERY} == set(range(len(RULES)))


EXPECTED = """
wanted   absent   none     requested
wanted   absent   unknown  requested
wanted   queued   none     queued
wanted   queued   unknown  queued
wanted   starting none     starting
wanted   running  none     starting
wanted   running  running  running
wanted   running  idle     running
wanted   starting idle     running
wanted   absent   running  running
wanted   unknown  running  running
wanted   queued   running  running
wanted   running  draining draining
wanted   unknown  draining draining
wanted   running  dead     stopping
wanted   unknown  dead     stopping
wanted   queued   dead     stopping
wanted   absent   dead     gone
wanted   running  unknown  unknown
wanted   starting unknown  unknown
wanted   unknown  none     unknown
wanted   unknown  unknown  unknown
wanted   failed   none     failed
wanted   failed   running  stopping
wanted   failed   draining stopping
wanted   failed   dead     failed
wanted   ended    none     failed
wanted   ended    dead     gone
wanted   ended    idle     stopping
wanted   stopping running  stopping
wanted   stopping none     stopping
released absent   none     gone
released absent   running  gone
released ended    dead     gone
released failed   none     gone
released running  dead     stopping
released running  running  stopping
released queued   none     stopping
released unknown  none     stopping
released unknown  unknown  stopping
released stopping dead     stopping
"""


@pytest.mark.parametrize("line", EXPECTED.strip().splitlines())
def test_the_state_of(line: str) -> None:
    intent, backend, node, state = line.split()
    assert derive(Intent(intent), BackendState(backend), NodeStatus(node)) is InstanceState(state)


@pytest.mark.parametrize("node", NodeStatus)
def test_a_release_is_over_only_when_a_listing_says_so(node: NodeStatus) -> None:
    over = {b for b in BackendState if derive(Intent.RELEASED, b, node) is InstanceState.GONE}
    assert over == {BackendState.ENDED, BackendState.FAILED, BackendState.ABSENT}


@pytest.mark.parametrize("node", NodeStatus)
def test_a_backend_that_does_not_answer_ends_nothing(node: NodeStatus) -> None:
    for intent in Intent:
        assert derive(intent, BackendState.UNKNOWN, node) in ALIVE


def test_every_pair_of_states_that_one_change_of_facts_brings_is_allowed() -> None:
    """One source changes its word: the pair of states that follow one another is in the table."""
    missing = set()
    for (i1, b1, n1), (i2, b2, n2) in product(EVERY, EVERY):
        one_changed = (i1 is not i2) + (b1 is not b2) + (n1 is not n2) == 1
        if not one_changed or not _can_follow((i1, n1), (i2, n2)) or not _backend_can_say(b1, b2):
            continue
        before, after = derive(i1, b1, n1), derive(i2, b2, n2)
        # That is another test's: an ended row is not forgotten before Ray has noticed.
        lives_again = before not in ALIVE and after in LIVING
        if before is not after and after not in TRANSITIONS[before] and not lives_again:
            missing.add((before.value, after.value))
    assert missing == set()


def _backend_can_say(before: BackendState, after: BackendState) -> bool:
    """What ends is over or queued anew; what is over is at most forgotten."""
    if before in {BackendState.ENDED, BackendState.FAILED}:
        return after in {before, BackendState.ABSENT}
    forward = {BackendState.STARTING, BackendState.RUNNING}
    return before is not BackendState.STOPPING or after not in forward


def _can_follow(before: tuple[Intent, NodeStatus], after: tuple[Intent, NodeStatus]) -> bool:
    """A release is for good, Ray forgets nobody it has shown, the dead stay dead, and nothing undrains."""
    if before[0] is Intent.RELEASED and after[0] is Intent.WANTED:
        return False
    was, now = before[1], after[1]
    if was is NodeStatus.DEAD:
        return now in {NodeStatus.DEAD, NodeStatus.UNKNOWN}
    if was is NodeStatus.DRAINING:
        return now not in {NodeStatus.RUNNING, NodeStatus.IDLE, NodeStatus.NONE}
    return True


def test_the_table_names_every_state_and_none_follows_itself_in_it_but_unknown() -> None:
    assert set(TRANSITIONS) == set(InstanceState)
    selves = {state for state, after in TRANSITIONS.items() if state in after}
    assert selves <= {InstanceState.UNKNOWN}


def test_who_ended_while_ray_was_silent_may_turn_out_to_have_failed() -> None:
    silent, back = (
        derive(Intent.WANTED, BackendState.ENDED, node) for node in (NodeStatus.UNKNOWN, NodeStatus.NONE)
    )
    assert (silent, back) == (InstanceState.UNKNOWN, InstanceState.FAILED)
    assert back in TRANSITIONS[silent]


def test_what_is_over_does_not_come_back_to_life() -> None:
    for state in set(InstanceState) - ALIVE:
        assert not TRANSITIONS[state] & LIVING
    assert ON_THE_WAY < ALIVE
