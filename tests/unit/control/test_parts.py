"""The loop's pure parts: usage, the idle watch, changes of the cluster file, measures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.control.idle_watch import IdleWatch
from heliostat.control.measures import WINDOW, Measures
from heliostat.control.spec_changes import changes
from heliostat.control.start_document import launch_request
from heliostat.control.usage import SECONDS_AT_MOST, usage
from heliostat.control.wiring import Identity
from heliostat.model.drain_limit import DrainLimit
from heliostat.model.gateway import GatewaySettings
from heliostat.model.gcs_storage import RECONNECT_VARIABLE, GcsStorage
from heliostat.model.instance import (
    BackendInstance,
    BackendState,
    Instance,
    InstanceIntent,
    InstanceState,
    Intent,
    NodeStatus,
)
from heliostat.model.resources import Resources
from heliostat.model.setup import Command, Setup
from heliostat.ports.journal import added_up
from tests.unit.control.world import HEAD, node_type, spec

INTENT = InstanceIntent("la.0", "la", "gpu", "fake", "s", Intent.WANTED, 0.0, "demand")
GPU = node_type("gpu", resources=Resources.of({"CPU": 8, "GPU": 2}), price_usd_per_h=3.6)
PRICES = {"gpu": 7.2}
"""The backend asks for twice of what the file says."""

DAY_S = 1_700_000_000.0


def instance(state: InstanceState, status: NodeStatus = NodeStatus.RUNNING) -> Instance:
    return Instance(INTENT, state, None, replace(HEAD, status=status))


def test_usage_counts_cores_gpus_money_and_idle_time() -> None:
    rows = usage(
        [instance(InstanceState.RUNNING), instance(InstanceState.RUNNING, NodeStatus.IDLE)],
        policy=spec(GPU).policy,
        prices=PRICES,
        seconds=10.0,
        wall_s=DAY_S,
    )
    (row,) = added_up(rows)
    assert (row.day, row.node_s, row.idle_s, row.core_s, row.gpu_s) == ("2023-11-14", 20, 10, 160, 40)
    assert row.cost_usd == pytest.approx(0.04)


@pytest.mark.parametrize("state", [InstanceState.QUEUED, InstanceState.GONE, InstanceState.FAILED])
def test_what_does_not_run_costs_nothing(state: InstanceState) -> None:
    assert usage([instance(state)], policy=spec(GPU).policy, prices=PRICES, seconds=1.0, wall_s=DAY_S) == []


@pytest.mark.parametrize(
    ("row_state", "is_paid"),
    [
        (None, False),
        (BackendState.QUEUED, False),
        (BackendState.STARTING, True),
        (BackendState.RUNNING, True),
        (BackendState.STOPPING, True),
        (BackendState.ENDED, False),
        (BackendState.FAILED, False),
    ],
)
def test_what_was_released_costs_something_where_a_machine_runs(
    row_state: BackendState | None, is_paid: bool
) -> None:
    row = None if row_state is None else BackendInstance("la.0", "w1", "gpu", row_state)
    one = Instance(INTENT, InstanceState.STOPPING, row, None)
    rows = usage([one], policy=spec(GPU).policy, prices=PRICES, seconds=1.0, wall_s=DAY_S)
    assert bool(rows) is is_paid


def test_what_is_a_node_still_costs_something_though_no_listing_has_it() -> None:
    nodes = [instance(InstanceState.STOPPING), instance(InstanceState.STOPPING, NodeStatus.DEAD)]
    (row,) = usage(nodes, policy=spec(GPU).policy, prices=PRICES, seconds=1.0, wall_s=DAY_S)
    assert row.node_s == 1.0


@pytest.mark.parametrize("gap_s", [0.0, -5.0, SECONDS_AT_MOST + 1])
def test_an_outage_is_not_charged(gap_s: float) -> None:
    running = [instance(InstanceState.RUNNING)]
    assert usage(running, policy=spec(GPU).policy, prices=PRICES, seconds=gap_s, wall_s=DAY_S) == []


def test_the_idle_watch_expires_after_its_time_and_starts_anew_when_used() -> None:
    watch = IdleWatch(10.0)
    assert not watch.expired(0.0, used=False)
    assert not watch.expired(9.0, used=False)
    assert not watch.expired(9.5, used=True)
    assert not watch.expired(12.0, used=False)
    assert watch.idle_s(20.0) == 8.0
    assert watch.expired(22.0, used=False)


def test_a_connected_driver_is_use() -> None:
    watch = IdleWatch(10.0)
    watch.drivers = 1
    assert not watch.expired(100.0, used=False)
    assert watch.idle_s(100.0) == 0.0


def test_without_a_time_the_cluster_is_never_let_go() -> None:
    watch = IdleWatch(None)
    watch.expired(0.0, used=False)
    assert not watch.expired(1e9, used=False)


def test_changes_are_sentences() -> None:
    old = spec(node_type("a"), node_type("b"))
    new = spec(node_type("a", max_workers=9), node_type("c"), max_workers=20)
    assert [one.text for one in changes(old, new)] == [
        "max_workers: 8 → 20",
        "a.max_workers: 4 → 9",
        "node type c is new",
        "node type b is gone: its nodes leave when idle",
    ]
    assert not any(one.refused for one in changes(old, new))


def test_changed_amounts_are_named_one_by_one() -> None:
    old = node_type("a", resources=Resources.of({"CPU": 1, "memory": 1895737651}))
    new = node_type("a", resources=Resources.of({"CPU": 2, "memory": 1895737651, "worker": 1}))
    texts = [one.text for one in changes(spec(old), spec(new))]
    assert texts == ["a.resources.CPU: 1 → 2", "a.resources.worker: 0 → 1"]


def test_a_new_shape_drifts_and_a_new_head_or_backend_is_refused() -> None:
    old = spec(node_type("a"))
    drifted = spec(node_type("a", shape_id="other", resources=Resources.of({"CPU": 2})))
    assert "new shape" in changes(old, drifted)[-1].text
    other_head = replace(old, head_type=replace(old.head_type, shape_id="other"))
    other_backend = replace(old, backends={"fake": {"cpus": 3}})
    renamed = replace(old, name="other")
    for new in (other_head, other_backend, renamed):
        assert [one.refused for one in changes(old, new)] == [True]


def test_measures_keep_a_bounded_window() -> None:
    measures = Measures()
    for value in range(WINDOW + 100):
        measures.observe("round_ms", float(value))
    summary = measures.summary()["round_ms"]
    assert summary["count"] == WINDOW + 100
    assert summary["max"] == WINDOW + 99
    assert summary["p50"] == pytest.approx(100 + WINDOW / 2, abs=1)
    assert "gcs_ms" not in measures.summary()


def test_values_that_may_be_secret_are_not_in_the_sentences() -> None:
    old = spec(node_type("a", options={"environment": {"TOKEN": "old-secret"}}))
    new = spec(node_type("a", options={"environment": {"TOKEN": "new-secret"}}, shape_id="other"))
    said = " ".join(one.text for one in changes(old, new))
    assert "a.node_config.environment changed" in said
    assert "secret" not in said


def test_a_changed_setup_is_said_without_its_commands() -> None:
    steps = Setup(commands=(Command("setup_commands.0", "login --token secret"),))
    old = spec(node_type("a"))
    new = replace(spec(node_type("a", setup=steps, shape_id="other")), head_setup=steps)
    assert [(one.text, one.refused) for one in changes(old, new)] == [
        ("the head's setup changed: it is done when a head is next started", False),
        ("a: its setup changed", False),
        ("a has a new shape: nodes of the old one leave when idle", False),
    ]


def test_a_changed_gateway_is_for_its_next_start() -> None:
    old = spec(GPU)
    (change,) = changes(old, replace(old, gateway=GatewaySettings("https://h")))
    assert change.text == (
        "provider.gateway changed: a gateway that runs keeps what it began with; start it again"
    )
    assert not change.refused


KEPT = GcsStorage("h", 6379)


def test_a_running_cluster_keeps_its_state_where_it_is() -> None:
    old, new = spec(GPU), replace(spec(GPU), gcs_storage=KEPT)
    for before, after in ((old, new), (new, old), (new, replace(new, gcs_storage=GcsStorage("h", 6380)))):
        (change,) = changes(before, after)
        assert change.refused
        assert "gcs_storage changed" in change.text
    assert changes(new, new) == []


@pytest.mark.parametrize(
    ("storage", "theirs", "waits_s"),
    [(None, {}, None), (KEPT, {}, "21"), (KEPT, {RECONNECT_VARIABLE: "7"}, "7")],
)
def test_workers_wait_for_a_head_that_comes_back_as_long_as_the_controller(
    storage: GcsStorage | None, theirs: dict[str, str], waits_s: str | None
) -> None:
    found = replace(spec(GPU), gcs_storage=storage, head_timeout_s=20.5, environment={"A": "b", **theirs})
    identity = Identity("test", "u1", "127.0.0.1:6379", "", "2.60.0", "3.11", 1)
    request = launch_request("l1", 1, node_type=GPU, spec=found, identity=identity, session="session_1")
    assert request.environment.get(RECONNECT_VARIABLE) == waits_s
    assert request.environment["A"] == "b"


def test_a_changed_limit_of_drains_is_a_sentence() -> None:
    new = spec(max_draining=(DrainLimit(percent=10), DrainLimit(0, hours=(480, 1080))))
    assert [one.text for one in changes(spec(), new)] == ["max_draining: 20 → 10%; 0, 08:00-18:00"]
    assert [one.text for one in changes(spec(), spec(max_draining=()))] == ["max_draining: 20 → no limit"]
