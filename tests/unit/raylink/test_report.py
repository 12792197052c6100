"""A round → what Ray keeps of it, and what drivers read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import prometheus_client
import pytest

from heliostat.model.demand import Bundle, Demand, Gang, GangStrategy
from heliostat.model.history import Failure
from heliostat.model.instance import BackendState, InstanceState, NodeStatus, RayNode
from heliostat.model.node_type import Policy
from heliostat.model.plan import Deferred, Infeasible, Limiter, Plan, Why
from heliostat.model.resources import Resources
from heliostat.model.snapshot import RayState
from heliostat.ports.cluster import RoundReport
from heliostat.raylink.cluster_config import cluster_config
from heliostat.raylink.driver_lines import AGAIN_S, DriverLines, Line
from heliostat.raylink.metrics import RayMetrics
from heliostat.raylink.report import FAILURES_SHOWN, FAILURES_SHOWN_S, autoscaling_state
from heliostat.raylink.session_log import SessionLog
from tests.unit.raylink.shapes import instance, node_type, quiet

GPU = Demand(Bundle(Resources.of({"GPU": 1})), 3)
GANG = Gang("ab", GangStrategy.PACK, (Demand(Bundle(Resources.of({"CPU": 8})), 2),))


def with_cpus(*cpus: int, dead: int = 0) -> RayState:
    shapes = [(NodeStatus.RUNNING, n) for n in cpus] + ([(NodeStatus.DEAD, dead)] if dead else [])
    return RayState(
        version=1,
        session_name="s",
        nodes=tuple(
            RayNode(str(at), status, Resources.of({"CPU": n}), Resources())
            for at, (status, n) in enumerate(shapes)
        ),
    )


def test_pending_is_told_by_how_far_it_is() -> None:
    report = quiet(
        instance("la.1", InstanceState.REQUESTED),
        instance("la.0", InstanceState.REQUESTED),
        instance("lb.0", InstanceState.QUEUED, row=BackendState.QUEUED, detail="Resources"),
        instance("lc.0", InstanceState.STARTING, row=BackendState.STARTING),
        instance("ld.0", InstanceState.RUNNING, row=BackendState.RUNNING),
    )
    state = autoscaling_state(report, version=9, seen_version=3, now_s=0.0)
    assert (state.autoscaler_state_version, state.last_seen_cluster_resource_state_version) == (9, 3)
    assert [
        (one.ray_node_type_name, one.count, one.request_ts) for one in state.pending_instance_requests
    ] == [("small", 2, 5)]
    assert [(one.instance_id, one.details) for one in state.pending_instances] == [
        ("n-lb.0", "queued (Resources): demand"),
        ("n-lc.0", "starting: demand"),
    ]


def test_what_comes_says_in_short_what_it_is_for() -> None:
    text = "2 × {CPU: 1, GPU: 1} wait, nothing free holds them; small is the only type that fits"
    made = instance("la.0", InstanceState.STARTING, row=BackendState.STARTING)
    made = replace(made, intent=replace(made.intent, reason=text))
    (pending,) = autoscaling_state(quiet(made), version=1, seen_version=1, now_s=0.0).pending_instances
    assert pending.details == "starting: 2 × {CPU: 1, GPU: 1} wait, nothing free holds them"


def test_what_queues_says_when_it_is_expected() -> None:
    made = instance("la.0", InstanceState.QUEUED, row=BackendState.QUEUED)
    assert made.row is not None
    for detail, said in (("Priority", "Priority, expected in 12 min"), (None, "expected in 12 min")):
        row = replace(made.row, detail=detail, expected_start_s=720.0)
        state = autoscaling_state(quiet(replace(made, row=row)), version=1, seen_version=1, now_s=0.0)
        assert state.pending_instances[0].details.startswith(f"queued ({said}): ")


def test_infeasible_is_told_once_and_by_its_source() -> None:
    plan = Plan(
        infeasible=(
            Infeasible(GPU, "no GPU"),
            Infeasible(GANG, "too big"),
            Infeasible(Demand(Bundle(Resources.of({"TPU": 1})), 1), "no TPU", from_constraint=True),
        )
    )
    everything = tuple(one.wanted for one in plan.infeasible)
    state = autoscaling_state(
        RoundReport(plan=plan, instances=(), infeasible=everything), version=1, seen_version=1, now_s=0.0
    )
    assert [dict(one.resources_bundle) for one in state.infeasible_resource_requests] == [{"GPU": 1}]
    assert [len(one.requests) for one in state.infeasible_gang_resource_requests] == [2]
    (constraint,) = state.infeasible_cluster_resource_constraints
    assert dict(constraint.resource_requests[0].request.resources_bundle) == {"TPU": 1}


def test_old_failures_are_left_out_and_the_newest_comes_first() -> None:
    old = Failure("lo.0", "small", 0.0, "old")
    new = [Failure(f"l{at}.0", "small", 5000.0 + at, f"words {at}") for at in range(FAILURES_SHOWN + 5)]
    report = replace(quiet(), failures=(old, *new))
    state = autoscaling_state(report, version=1, seen_version=1, now_s=FAILURES_SHOWN_S + 100)
    shown = [one.reason for one in state.failed_instance_requests]
    assert shown[0] == f"words {FAILURES_SHOWN + 4}"
    assert len(shown) == FAILURES_SHOWN


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


def test_a_change_is_said_once() -> None:
    lines = DriverLines(since_s=10.0)
    report = replace(
        quiet(), launched={"small": 2, "big": 1}, released={"small": 1}, release_causes={"small": "idle"}
    )
    assert texts(lines.of(report, ray=with_cpus(0), now_s=11.0)) == [
        "Adding 1 node of type big.",
        "Adding 2 nodes of type small.",
        "Removing 1 node of type small (idle).",
    ]
    assert texts(lines.of(quiet(), ray=with_cpus(0, 2, dead=8), now_s=12.0)) == ["Resized to 2 CPUs."]
    assert texts(lines.of(quiet(), ray=with_cpus(0, 2), now_s=13.0)) == []
    assert texts(lines.of(quiet(), ray=None, now_s=14.0)) == []


def test_failures_from_before_this_controller_are_not_said_again() -> None:
    lines = DriverLines(since_s=10.0)
    report = replace(
        quiet(),
        failures=(Failure("lo.0", "small", 9.0, "old"), Failure("ln.0", "small", 11.0, "no GPU is left")),
    )
    first = lines.of(report, ray=None, now_s=12.0)
    assert texts(first) == ["A node of type small failed (ln.0): no GPU is left"]
    assert first[0].warning
    assert lines.of(report, ray=None, now_s=13.0) == []


def test_infeasible_demand_is_said_at_once_and_then_slowly() -> None:
    lines = DriverLines(since_s=0.0)
    hopeless = RoundReport(plan=Plan(infeasible=(Infeasible(GPU, "no type has a GPU"),)), instances=())
    more = RoundReport(
        plan=Plan(infeasible=(Infeasible(Demand(GPU.bundle, 9), "no type has a GPU"),)), instances=()
    )
    text = "No node type can ever hold {GPU: 1}: no type has a GPU"
    assert texts(lines.of(hopeless, ray=None, now_s=0.0)) == [text]
    assert lines.of(more, ray=None, now_s=1.0) == []
    assert texts(lines.of(hopeless, ray=None, now_s=AGAIN_S)) == [text]
    assert lines.of(quiet(), ray=None, now_s=AGAIN_S + 1) == []
    assert texts(lines.of(hopeless, ray=None, now_s=AGAIN_S + 2)) == [text]


CPU = Bundle(Resources.of({"CPU": 1}))


def held(count: int, limiter: Limiter, *, why: Why = Why.DEMAND) -> Deferred:
    return Deferred(Demand(CPU, count), limiter, f"{count} and no more", why)


def waiting(count: int) -> RayState:
    return RayState(version=1, session_name="s", demands=(Demand(CPU, count),))


def said(lines: DriverLines, *deferred: Deferred, waits: int, at_s: float) -> list[str]:
    report = RoundReport(plan=Plan(deferred=deferred), instances=())
    return texts(lines.of(report, ray=waiting(waits), now_s=at_s))


def test_what_is_wholly_held_back_is_said_when_the_limiter_changes() -> None:
    lines = DriverLines(since_s=0.0)
    at_most = "{CPU: 1} is held back by max_workers: %d and no more"
    assert said(lines, held(3, Limiter.MAX_WORKERS), waits=4, at_s=0.0) == []
    assert said(lines, held(3, Limiter.MAX_WORKERS), waits=3, at_s=1.0) == [at_most % 3]
    assert said(lines, held(2, Limiter.MAX_WORKERS), waits=2, at_s=2.0) == []
    assert said(lines, held(2, Limiter.BACKOFF), waits=2, at_s=3.0) == [
        "{CPU: 1} is held back by backoff: 2 and no more"
    ]
    assert said(lines, waits=2, at_s=4.0) == []
    assert said(lines, held(2, Limiter.MAX_WORKERS), waits=2, at_s=5.0) == []
    assert said(lines, held(2, Limiter.MAX_WORKERS), waits=2, at_s=1.0 + AGAIN_S) == [at_most % 2]


def test_two_limiters_together_hold_back_all() -> None:
    both = held(2, Limiter.MAX_WORKERS), held(1, Limiter.BACKOFF)
    assert len(said(DriverLines(since_s=0.0), *both, waits=3, at_s=0.0)) == 2
    assert said(DriverLines(since_s=0.0), *both, waits=4, at_s=0.0) == []


@pytest.mark.parametrize("why", [Why.CONSTRAINT, Why.MIN_WORKERS, Why.REPLACEMENT])
def test_what_nobody_waits_for_is_not_said(why: Why) -> None:
    assert said(DriverLines(since_s=0.0), held(3, Limiter.MAX_WORKERS, why=why), waits=3, at_s=0.0) == []


def test_a_placement_group_is_held_back_whole() -> None:
    gang = Deferred(GANG, Limiter.CAPACITY, "no GPU is left", Why.GANG)
    (line,) = said(DriverLines(since_s=0.0), gang, waits=0, at_s=0.0)
    assert line == f"{GANG} is held back by capacity: no GPU is left"


def test_the_session_log_writes_rays_events_and_a_log_for_people(tmp_path: Path) -> None:
    for session in ("one", "two"):
        log = SessionLog(str(tmp_path / session))
        log.note("hello")
        log.write([Line("Adding 1 node of type small."), Line("No way", warning=True)])
        log.close()
        events = (tmp_path / session / "events" / "event_AUTOSCALER.log").read_text().splitlines()
        assert [(json.loads(one)["severity"], json.loads(one)["message"]) for one in events] == [
            ("INFO", "Adding 1 node of type small."),
            ("WARNING", "No way"),
        ]
        assert len((tmp_path / session / "monitor.log").read_text().splitlines()) == 3


def test_cluster_config_counts_what_all_types_together_may_bring() -> None:
    policy = Policy(
        node_types=(
            node_type("small", {"CPU": 2, "part": 0.5}),
            node_type("big", {"CPU": 8, "GPU": 2}, most=9, labels={"ray.io/accelerator-type": "A100"}),
        ),
        max_workers=5,
        idle_timeout_s=1.0,
    )
    head = Resources.of({"CPU": 1, "memory": 1000.5, "node:10.0.0.1": 1})
    config = cluster_config(policy, node_type("head", {}), head=head)
    groups = {one.name: one for one in config.node_group_configs}
    assert {name: (one.min_count, one.max_count) for name, one in groups.items()} == {
        "small": (0, 4),
        "big": (0, 5),
        "head": (1, 1),
    }
    assert dict(groups["small"].resources) == {"CPU": 2, "part": 1}
    assert dict(groups["big"].resources) == {"CPU": 8, "GPU": 2, "accelerator_type:A100": 1}
    assert dict(groups["head"].resources) == {"CPU": 1, "memory": 1000}
    assert dict(config.max_resources) == {
        "CPU": 41,
        "GPU": 10,
        "accelerator_type:A100": 5,
        "memory": 1000,
        "part": 4,
    }


def test_a_head_without_resources_is_no_group() -> None:
    policy = Policy((node_type("small", {"CPU": 1}),), max_workers=2, idle_timeout_s=1.0)
    config = cluster_config(policy, node_type("head", {}), head=None)
    assert [one.name for one in config.node_group_configs] == ["small"]
    assert config.node_group_configs[0].max_count == 2


def samples(metrics: RayMetrics) -> dict[str, float]:
    lines = prometheus_client.generate_latest(metrics.prometheus.registry).decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}


def test_metrics_follow_the_round() -> None:
    metrics = RayMetrics("s", since_s=10.0)
    shapes = {"small": Resources.of({"CPU": 2})}
    failures = (Failure("lo.0", "small", 9.0, "old"), Failure("ln.0", "small", 11.0, "new"))
    first = replace(quiet(instance("la.0", InstanceState.STARTING)), failures=failures)
    metrics.observe(first, ray=with_cpus(1), shapes=shapes, now_s=12.0)
    seen = samples(metrics)
    assert seen['autoscaler_pending_nodes{NodeType="small",SessionName="s"}'] == 1
    assert seen['autoscaler_pending_resources{SessionName="s",resource="CPU"}'] == 2
    assert seen['autoscaler_recently_failed_nodes{NodeType="small",SessionName="s"}'] == 2
    assert seen['autoscaler_failed_create_nodes_total{SessionName="s"}'] == 1

    up = quiet(instance("la.0", InstanceState.RUNNING))
    for _ in range(2):
        metrics.observe(up, ray=with_cpus(1, 2), shapes=shapes, now_s=13.0)
    seen = samples(metrics)
    assert seen['autoscaler_active_nodes{NodeType="small",SessionName="s"}'] == 1
    assert seen['autoscaler_started_nodes_total{SessionName="s"}'] == 1
    assert seen['autoscaler_cluster_resources{SessionName="s",resource="CPU"}'] == 3
    assert 'autoscaler_pending_resources{SessionName="s",resource="CPU"}' not in seen

    metrics.observe(quiet(), ray=None, shapes={}, now_s=14.0)
    seen = samples(metrics)
    assert seen['autoscaler_stopped_nodes_total{SessionName="s"}'] == 1
    assert 'autoscaler_active_nodes{NodeType="small",SessionName="s"}' not in seen


def test_a_taken_metrics_port_is_replaced() -> None:
    first, second = RayMetrics("s", since_s=0.0), RayMetrics("s", since_s=0.0)
    try:
        taken = first.serve(0)
        assert second.serve(taken) not in {0, taken}
    finally:
        first.close()
        second.close()


@pytest.mark.parametrize("state", list(InstanceState))
def test_every_state_can_be_reported(state: InstanceState) -> None:
    autoscaling_state(quiet(instance("la.0", state)), version=1, seen_version=0, now_s=0.0)
