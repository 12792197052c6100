"""How intents, rows and nodes are joined into instances."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.model.demand import Bundle, LabelConstraint, LabelOperator
from heliostat.model.instance import (
    BackendInstance,
    BackendState,
    InstanceIntent,
    InstanceState,
    Intent,
    NodeStatus,
    RayNode,
)
from heliostat.model.rejection import About, Rejection
from heliostat.model.resources import NOTHING, Resources
from heliostat.model.snapshot import BackendView, RayState, Snapshot, join

INTENT = InstanceIntent("l1.0", "l1", "cpu", "fake", "shape", Intent.WANTED, 100.0, "a test")
ROW = BackendInstance("l1.0", "w1", "cpu", BackendState.RUNNING)
CPU = Resources.of({"CPU": 1})


def node(status: NodeStatus, node_id: str = "n1", instance_id: str = "l1.0") -> RayNode:
    return RayNode(node_id, status, CPU, CPU, instance_id=instance_id)


def state_of(
    *nodes: RayNode,
    intent: InstanceIntent = INTENT,
    row: BackendInstance | None = ROW,
    fresh: bool = True,
    under_way: bool = False,
    listed_at_s: float = 200.0,
    ray: bool = True,
) -> InstanceState:
    view = BackendView((row,) if row else (), listed_at_s, fresh, under_way=under_way)
    state = RayState(1, "s", nodes) if ray else None
    (one,) = join(Snapshot(200.0, state, {"fake": view}, (intent,)))
    return one.state


@pytest.mark.parametrize("order", [1, -1])
def test_a_living_node_beats_a_dead_one_with_the_same_id(order: int) -> None:
    nodes = [node(NodeStatus.DEAD, "n1"), node(NodeStatus.RUNNING, "n2")][::order]
    view = BackendView((ROW,), 200.0, True)
    (one,) = join(Snapshot(200.0, RayState(1, "s", tuple(nodes)), {"fake": view}, (INTENT,)))
    assert one.state is InstanceState.RUNNING
    assert one.node is not None
    assert one.node.node_id == "n2"


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("first", "second", "counts"),
    [
        (BackendState.RUNNING, BackendState.STOPPING, "w1"),
        (BackendState.ENDED, BackendState.QUEUED, "w2"),
        (BackendState.STARTING, BackendState.RUNNING, "w2"),
        (BackendState.RUNNING, BackendState.RUNNING, "w1"),
        (BackendState.FAILED, BackendState.STOPPING, "w2"),
    ],
)
def test_of_several_rows_of_one_instance_the_one_that_is_furthest_up_counts(
    first: BackendState, second: BackendState, counts: str, order: int
) -> None:
    rows = (replace(ROW, state=first), replace(ROW, native_id="w2", state=second))[::order]
    (one,) = join(Snapshot(200.0, RayState(1, "s"), {"fake": BackendView(rows, 200.0, True)}, (INTENT,)))
    assert one.row is not None
    assert one.row.native_id == counts


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("first", "second", "counts"),
    [
        (NodeStatus.RUNNING, NodeStatus.IDLE, "n1"),
        (NodeStatus.DRAINING, NodeStatus.RUNNING, "n1"),
        (NodeStatus.DEAD, NodeStatus.DRAINING, "n2"),
        (NodeStatus.DEAD, NodeStatus.DEAD, "n1"),
    ],
)
def test_of_several_nodes_with_the_same_id_the_same_one_counts_in_any_order(
    first: NodeStatus, second: NodeStatus, counts: str, order: int
) -> None:
    nodes = [node(first, "n1"), node(second, "n2")][::order]
    view = BackendView((ROW,), 200.0, True)
    (one,) = join(Snapshot(200.0, RayState(1, "s", tuple(nodes)), {"fake": view}, (INTENT,)))
    assert one.node is not None
    assert one.node.node_id == counts


RELEASED = replace(INTENT, intent=Intent.RELEASED, released_at_s=150.0)


@pytest.mark.parametrize(
    ("listed_at_s", "state"),
    [(149.0, InstanceState.STOPPING), (150.0, InstanceState.STOPPING), (151.0, InstanceState.GONE)],
)
def test_only_a_listing_newer_than_the_release_can_say_that_it_is_gone(
    listed_at_s: float, state: InstanceState
) -> None:
    assert state_of(intent=RELEASED, row=None, listed_at_s=listed_at_s) is state


@pytest.mark.parametrize(
    ("intent", "row", "state"),
    [
        (RELEASED, None, InstanceState.STOPPING),
        (RELEASED, replace(ROW, state=BackendState.ENDED), InstanceState.GONE),
        (INTENT, None, InstanceState.REQUESTED),
    ],
)
def test_a_listing_that_may_not_show_it_yet_can_not_say_that_it_is_gone(
    intent: InstanceIntent, row: BackendInstance | None, state: InstanceState
) -> None:
    view = BackendView((row,) if row else (), 200.0, True, unseen=frozenset({"l1.0"}))
    (one,) = join(Snapshot(200.0, RayState(1, "s"), {"fake": view}, (intent,)))
    assert one.state is state


@pytest.mark.parametrize(
    ("unseen", "state"),
    [(frozenset({"l1.0"}), InstanceState.STOPPING), (frozenset(), InstanceState.GONE)],
)
def test_a_node_that_died_before_any_listing_had_it_may_still_hold_its_machine(
    unseen: frozenset[str], state: InstanceState
) -> None:
    view = BackendView((), 200.0, True, unseen=unseen)
    ray = RayState(1, "s", (node(NodeStatus.DEAD),))
    (one,) = join(Snapshot(200.0, ray, {"fake": view}, (INTENT,)))
    assert one.state is state


def test_a_listing_that_failed_says_nothing_of_what_it_lacks() -> None:
    assert state_of(row=None, fresh=False) is InstanceState.UNKNOWN
    assert state_of(row=ROW, fresh=False) is InstanceState.UNKNOWN
    assert state_of(node(NodeStatus.IDLE), row=None, fresh=False) is InstanceState.RUNNING


@pytest.mark.parametrize("over", [BackendState.ENDED, BackendState.FAILED])
def test_what_a_backend_called_over_stays_so_when_it_falls_silent(over: BackendState) -> None:
    row = replace(ROW, state=over)
    late = node(NodeStatus.RUNNING)
    assert state_of(late, row=row, fresh=False) is state_of(late, row=row)
    # What was refused may have come all the same.
    refused = replace(row, rejection=Rejection("full", About.TYPE))
    assert state_of(row=refused, fresh=False) is InstanceState.UNKNOWN
    # Of what was released only a fresh listing tells.
    released = replace(INTENT, intent=Intent.RELEASED, released_at_s=150.0)
    assert state_of(late, row=row, fresh=False, intent=released) is InstanceState.STOPPING


def test_a_backend_that_was_never_listed_is_unknown() -> None:
    (one,) = join(Snapshot(200.0, RayState(1, "s"), {}, (INTENT,)))
    assert one.state is InstanceState.UNKNOWN
    assert one.available == NOTHING
    assert one.display_name == "l1.0"


def test_a_silent_ray_leaves_nodes_unknown_rather_than_missing() -> None:
    assert state_of(ray=True) is InstanceState.STARTING
    assert state_of(ray=False) is InstanceState.UNKNOWN


def test_foreign_nodes_belong_to_no_instance_and_order_is_the_intents() -> None:
    other = replace(INTENT, instance_id="l0.0")
    nodes = (node(NodeStatus.IDLE, "f", instance_id=""), node(NodeStatus.IDLE))
    view = BackendView((ROW,), 200.0, True)
    found = join(Snapshot(200.0, RayState(1, "s", nodes), {"fake": view}, (INTENT, other)))
    assert [one.instance_id for one in found] == ["l1.0", "l0.0"]
    assert [one.node.node_id if one.node else None for one in found] == ["n1", None]
    assert found[0].display_name == "w1"


def test_selectors_are_tried_one_after_another_and_not_in_holds_without_the_label() -> None:
    in_a = LabelConstraint("zone", LabelOperator.IN, ("a",))
    not_b = LabelConstraint("zone", LabelOperator.NOT_IN, ("b",))
    either = Bundle(CPU, ((in_a,), (not_b,)))
    assert either.allows({"zone": "a"})
    assert either.allows({})
    assert not either.allows({"zone": "b"})
    assert Bundle(CPU).allows({"zone": "b"})
    assert not Bundle(CPU, ((in_a, not_b),)).allows({"zone": "c"})
    assert str(Bundle(CPU, ((in_a, not_b),))) == "{CPU: 1} where zone in (a) and zone not in (b)"


@pytest.mark.parametrize(
    ("row", "state"),
    [
        (BackendState.QUEUED, InstanceState.QUEUED),
        (BackendState.STARTING, InstanceState.STARTING),
        (None, InstanceState.REQUESTED),
        (BackendState.STOPPING, InstanceState.UNKNOWN),
        (BackendState.FAILED, InstanceState.UNKNOWN),
        (BackendState.ENDED, InstanceState.UNKNOWN),
    ],
)
def test_while_a_change_is_under_way_nobody_is_called_over(
    row: BackendState | None, state: InstanceState
) -> None:
    listed = replace(ROW, state=row) if row else None
    assert state_of(row=listed, fresh=False, under_way=True) is state


def test_nor_is_who_was_released_or_has_died() -> None:
    released = replace(INTENT, intent=Intent.RELEASED, released_at_s=150.0)
    assert state_of(intent=released, row=None, fresh=False, under_way=True) is InstanceState.STOPPING
    dead = node(NodeStatus.DEAD)
    assert state_of(dead, row=None, fresh=False, under_way=True) is InstanceState.STOPPING
