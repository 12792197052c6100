"""What Ray really says and shows, on one shared head."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator

import pytest

from heliostat.model.demand import Demand, Gang, GangStrategy
from heliostat.model.history import Failure
from heliostat.model.instance import (
    BackendInstance,
    BackendState,
    DrainReason,
    Instance,
    InstanceIntent,
    InstanceState,
    Intent,
    NodeStatus,
)
from heliostat.model.node_type import NodeType, Policy
from heliostat.model.plan import Infeasible, Plan
from heliostat.model.resources import Resources
from heliostat.model.snapshot import RayState
from heliostat.ports.cluster import RoundReport
from heliostat.ports.errors import ClusterUnreachable, StrangerCluster
from heliostat.raylink.address_file import claim_address_file, release_address_file
from heliostat.raylink.gcs import GcsCluster
from heliostat.raylink.probe import probe_head
from heliostat.raylink.reader import GcsReader
from tests.integration.raylink.conftest import UID, Head, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

WORK = """
import sys
import ray
from ray.autoscaler.sdk import request_resources
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

ray.init()

@ray.remote(num_cpus=0.5, resources={"x": 1})
def task(): return 1

@ray.remote(num_cpus=1, memory=100 * 2**20)
class Actor: pass

@ray.remote(num_cpus=3)
def plain(): return 1

kept = [task.remote() for _ in range(3)]
kept.append(plain.options(label_selector={"zone": "in(b,a)", "kind": "!spot"}).remote())
kept.append(plain.options(
    label_selector={"zone": "a"},
    fallback_strategy=[{"label_selector": {"zone": "b"}}, {"label_selector": {"zone": "!c"}}],
).remote())
kept.append(plain.options(num_gpus=0.25).remote())
kept.append(Actor.remote())
groups = [
    placement_group([{"CPU": 1}] * 2 + [{"CPU": 2, "GPU": 1}], strategy=strategy)
    for strategy in ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")
]
groups.append(placement_group(
    [{"CPU": 4}] * 2, strategy="PACK", bundle_label_selector=[{"zone": "a"}, {"zone": "b"}]
))
inside = PlacementGroupSchedulingStrategy(groups[0])
kept.append(plain.options(num_cpus=1, scheduling_strategy=inside).remote())
request_resources(num_cpus=4, bundles=[{"CPU": 1, "GPU": 1}] * 2)
print("ids", *(group.id.hex() for group in groups))
print("asked")
sys.stdin.readline()
"""

HOLD = """
import sys
import ray
from ray.util.placement_group import placement_group

ray.init()

@ray.remote(num_cpus=1)
def hold(path):
    import os, time
    while not os.path.exists(path):
        time.sleep(0.05)

held = hold.remote(sys.argv[1])
print("submitted")
ray.get(held)
print("done")
group = placement_group([{"anchor": 1}, {"CPU": 1}, {"CPU": 1}], strategy="PACK")
print("placed", group.wait(20))
sys.stdin.readline()
"""


# `get_max_resources_from_cluster_config` is what Ray Data's shuffle sizes itself by and what Ray Train
# refuses by; Data's autoscaler asks for nodes of the groups' shapes, the head's own shape left out.
LIMITS = """
import ray
from ray._private.state import state

ray.init(log_to_driver=False)
most = state.get_max_resources_from_cluster_config()
print("most", most["CPU"], most["GPU"], most["anchor"])
groups = {one.name: one for one in state.get_cluster_config().node_group_configs}
print("groups", sorted((one.name, one.min_count, one.max_count) for one in groups.values()))
front = next(one for one in ray.nodes() if "node:__internal_head__" in one["Resources"])
told = dict(groups["head"].resources)
print("head's own", all(told.get(name, 0) == front["Resources"].get(name, 0) for name in ("CPU", "memory")))
"""


@pytest.fixture
async def cluster(head: Head) -> AsyncIterator[GcsCluster]:
    link = head.cluster()
    await link.connect()
    yield link
    await link.aclose()


def small(**changes: object) -> NodeType:
    fields: dict[str, object] = {
        "name": "small",
        "backend": "local",
        "resources": Resources.of({"CPU": 2, "memory": 2**30}),
        "shape_id": "s",
        "max_workers": 3,
    }
    return NodeType(**{**fields, **changes})  # type: ignore[arg-type]


def instance(
    instance_id: str, *, state: InstanceState, row: BackendState | None, detail: str = ""
) -> Instance:
    intent = InstanceIntent(
        instance_id=instance_id,
        launch_id=instance_id.partition(".")[0],
        node_type="small",
        backend="local",
        shape_id="s",
        intent=Intent.WANTED,
        requested_at_s=1.0,
        reason="demand",
    )
    listed = row and BackendInstance(
        instance_id=instance_id, native_id=f"job-{instance_id}", node_type="small", state=row, detail=detail
    )
    return Instance(intent, state, listed)


def amounts(demands: tuple[Demand, ...]) -> list[tuple[dict[str, float], int]]:
    return [(demand.bundle.resources.units(), demand.count) for demand in demands]


def all_asked(state: RayState) -> bool:
    return len(state.gangs) == 5 and len(state.demands) == 5 and state.constraint is not None


async def test_all_kinds_of_work_become_demand_and_are_reported(head: Head, cluster: GcsCluster) -> None:
    with head.driver(WORK) as driver:
        ids = driver.wait_for("asked").split("ids ")[1].split()[:5]
        state = await until(cluster.state, all_asked)
        check_demands(state)
        check_gangs(state, ids)
        assert state.constraint is not None
        assert amounts(state.constraint.demands) == [({"CPU": 1}, 4), ({"CPU": 1, "GPU": 1}, 2)]
        assert (await cluster.state()).demands == state.demands

        await cluster.report(round_report(state))
        check_ray_status(head)
        driver.wait_for("(autoscaler +", timeout_s=15)
        driver.wait_for("Adding 2 nodes of type small.")
        shown = driver.wait_for("No node type can ever hold")
        assert "GPU: 1" in shown
        assert "A node of type small failed (lold.0): out of GPUs" in shown
    monitor = (head.folder / "h" / head.ready.session_name / "logs" / "monitor.log").read_text()
    assert monitor.count("Adding 2 nodes of type small.") == 1
    assert "heliostat test scales this cluster" in monitor


def check_demands(state: RayState) -> None:
    by_shape = {str(demand.bundle): demand.count for demand in state.demands}
    assert by_shape == {
        "{CPU: 0.5, x: 1}": 3,
        f"{{CPU: 1, memory: {100 * 2**20:g}}}": 1,
        "{CPU: 3} where kind not in (spot) and zone in (a, b)": 1,
        "{CPU: 3} where zone in (a) or zone in (b) or zone not in (c)": 1,
        "{CPU: 3, GPU: 0.25}": 1,
    }


def check_gangs(state: RayState, ids: list[str]) -> None:
    gangs = {gang.gang_id: gang for gang in state.gangs}
    assert sorted(gangs) == sorted(ids)
    assert [gangs[one].strategy for one in ids] == [
        GangStrategy.PACK,
        GangStrategy.SPREAD,
        GangStrategy.STRICT_PACK,
        GangStrategy.STRICT_SPREAD,
        GangStrategy.PACK,
    ]
    for one in ids[:4]:
        assert amounts(gangs[one].demands) == [({"CPU": 1}, 2), ({"CPU": 2, "GPU": 1}, 1)]
    apart = {demand.bundle.anti_affinity for demand in gangs[ids[3]].demands}
    assert apart == {f"_PG_{ids[3]}"}
    assert {demand.bundle.anti_affinity for one in ids[:3] for demand in gangs[one].demands} == {None}
    assert [str(demand) for demand in gangs[ids[4]].demands] == [
        "1 × {CPU: 4} where zone in (a)",
        "1 × {CPU: 4} where zone in (b)",
    ]


def round_report(state: RayState) -> RoundReport:
    gpu = next(demand for demand in state.demands if demand.bundle.resources.get("GPU"))
    gang: Gang = state.gangs[0]
    return RoundReport(
        plan=Plan(
            infeasible=(
                Infeasible(gpu, "no node type has a GPU"),
                Infeasible(gang, "it needs {GPU: 1} on one node"),
                Infeasible(Demand(gpu.bundle, 2), "no node type has a GPU", from_constraint=True),
            )
        ),
        instances=(
            instance("la.0", state=InstanceState.REQUESTED, row=None),
            instance("la.1", state=InstanceState.REQUESTED, row=None),
            instance("lb.0", state=InstanceState.QUEUED, row=BackendState.QUEUED, detail="Priority"),
        ),
        failures=(Failure("lold.0", "small", 4e9, "out of GPUs"),),
        launched={"small": 2},
    )


def check_ray_status(head: Head) -> None:
    shown = head.run(sys.executable, "-m", "ray.scripts.scripts", "status", "-v")
    # Ray counts launches, not instances, and shows details in lower case.
    assert " small, 1 launching" in shown
    assert " job-lb.0: small, queued (priority)" in shown
    assert "small: LaunchFailed" in shown
    assert "out of GPUs" in shown
    with GcsReader(head.ready.address, head.token) as reader:
        seen = reader.autoscaling_state()
    assert len(seen.infeasible_resource_requests) == 1
    assert len(seen.infeasible_gang_resource_requests) == 1
    assert len(seen.infeasible_cluster_resource_constraints) == 1


async def test_a_worker_joins_refuses_to_go_and_goes(head: Head, cluster: GcsCluster) -> None:
    release = head.folder / "release"
    with (
        head.worker("lw.0", "--num-cpus=2", "--labels=zone=a", "--object-store-memory=100000000"),
        head.driver(f"import sys; sys.argv = ['', {str(release)!r}]\n{HOLD}") as driver,
    ):
        state = await until(cluster.state, lambda state: len(living(state)) == 2)
        worker = next(node for node in state.nodes if node.instance_id == "lw.0")
        assert (worker.node_type, worker.labels["zone"], worker.is_head) == ("small", "a", False)
        assert worker.total.get("CPU") == 20_000
        front = next(node for node in state.nodes if node.is_head)
        assert (front.instance_id, front.labels["place"]) == ("head", "front")

        state = await until(cluster.state, lambda state: free_cpus(state, worker.node_id) == 1)
        refused = await cluster.drain(
            worker.node_id, reason=DrainReason.IDLE, message="idle", deadline_s=None
        )
        assert not refused.accepted
        assert refused.message
        release.touch()
        driver.wait_for("placed True")

        state = await until(cluster.state, lambda state: free_cpus(state, worker.node_id) == 0)
        held = next(node for node in state.nodes if node.node_id == worker.node_id)
        assert not [name for name, _ in held.total if "_group_" in name]
        assert not state.gangs
        # The node goes, and takes with it two bundles of three: only those are asked for again.
        accepted = await cluster.drain(
            worker.node_id, reason=DrainReason.PREEMPTION, message="lease ends", deadline_s=4e9
        )
        assert accepted.accepted
        await until(cluster.state, lambda state: status(state, worker.node_id) is NodeStatus.DRAINING)
        await gang_asks_again(head, cluster, worker.node_id)


async def gang_asks_again(head: Head, cluster: GcsCluster, node_id: str) -> None:
    raylet = await asyncio.to_thread(head.run, "pgrep", "-f", f"raylet.*--node_id={node_id}")
    os.kill(int(raylet), signal.SIGTERM)
    state = await until(cluster.state, lambda state: bool(state.gangs))
    assert status(state, node_id) is NodeStatus.DEAD
    assert amounts(state.gangs[0].demands) == [({"CPU": 1}, 2)]
    assert state.gangs[0].strategy is GangStrategy.PACK


async def test_an_idle_worker_lets_itself_be_drained(head: Head, cluster: GcsCluster) -> None:
    with head.worker("lw.1", "--num-cpus=1", "--object-store-memory=100000000"):
        state = await until(
            cluster.state, lambda state: any(node.instance_id == "lw.1" for node in state.nodes)
        )
        worker = next(node for node in state.nodes if node.instance_id == "lw.1")
        await until(cluster.state, lambda state: status(state, worker.node_id) is NodeStatus.IDLE)
        reply = await cluster.drain(worker.node_id, reason=DrainReason.IDLE, message="idle", deadline_s=None)
        assert reply.accepted
        await until(cluster.state, lambda state: status(state, worker.node_id) is NodeStatus.DEAD)


def living(state: RayState) -> list[str]:
    return [node.node_id for node in state.nodes if node.status is not NodeStatus.DEAD]


def status(state: RayState, node_id: str) -> NodeStatus:
    return next((node.status for node in state.nodes if node.node_id == node_id), NodeStatus.NONE)


def free_cpus(state: RayState, node_id: str) -> float:
    return next(node.available.get("CPU") / 10_000 for node in state.nodes if node.node_id == node_id)


async def test_ray_data_and_train_see_what_the_cluster_could_become(head: Head, cluster: GcsCluster) -> None:
    policy = Policy(
        node_types=(small(), small(name="big", resources=Resources.of({"CPU": 8, "GPU": 2}), max_workers=9)),
        max_workers=4,
        idle_timeout_s=60.0,
    )
    head_type = small(name="head", resources=Resources.of({"CPU": 0, "anchor": 1}), max_workers=0)
    await cluster.report_config(policy, head_type)
    shown = head.run(sys.executable, "-c", LIMITS)
    # Four workers at most, all of them big: 4 × 8 CPUs; the head's resources come on top.
    assert "most 32 8 1" in shown
    assert "groups [('big', 0, 4), ('head', 1, 1), ('small', 0, 3)]" in shown
    assert "head's own True" in shown


async def test_metrics_are_found_and_scraped(head: Head, cluster: GcsCluster) -> None:
    await cluster.report_config(Policy((small(),), max_workers=3, idle_timeout_s=60.0), small(name="head"))
    await cluster.state()
    running = instance("lc.0", state=InstanceState.RUNNING, row=BackendState.RUNNING)
    pending = instance("lc.1", state=InstanceState.STARTING, row=BackendState.STARTING)
    await cluster.report(RoundReport(plan=Plan(), instances=(pending,)))
    await cluster.report(RoundReport(plan=Plan(), instances=(running, pending)))
    with GcsReader(head.ready.address, head.token) as reader:
        address = reader.get(b"AutoscalerMetricsAddress", namespace=b"")
    assert address == cluster.metrics_address
    text = await asyncio.to_thread(scrape, address)
    values = dict(re.findall(r"^(autoscaler_\w+)\{[^}]*\} ([\d.]+)$", text, flags=re.MULTILINE))
    assert values["autoscaler_pending_nodes"] == "1.0"
    assert values["autoscaler_active_nodes"] == "1.0"
    assert values["autoscaler_started_nodes_total"] == "1.0"
    assert values["autoscaler_update_time_seconds_count"] == "1.0"
    assert f'SessionName="{head.ready.session_name}"' in text
    assert "autoscaler_pending_resources{SessionName" in text or 'resource="CPU"' in text


def scrape(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as reply:
        return str(reply.read().decode())


async def test_a_second_controller_is_not_dropped_in_silence(head: Head, cluster: GcsCluster) -> None:
    await cluster.report(RoundReport(plan=Plan(), instances=()))
    with GcsReader(head.ready.address, head.token) as reader:
        before = reader.autoscaling_state().autoscaler_state_version
    second = head.cluster(session=None, logs=False)
    await second.connect()
    try:
        assert second.session_name == head.ready.session_name
        queued = instance("ld.0", state=InstanceState.QUEUED, row=BackendState.QUEUED)
        await second.report(RoundReport(plan=Plan(), instances=(queued,)))
        await second.heartbeat()
    finally:
        await second.aclose()
    with GcsReader(head.ready.address, head.token) as reader:
        after = reader.autoscaling_state()
        assert reader.get(b"heartbeat", namespace=b"heliostat").isdigit()
    assert after.autoscaler_state_version > before
    assert [one.instance_id for one in after.pending_instances] == ["job-ld.0"]


async def test_strangers_are_told_apart(head: Head, cluster: GcsCluster) -> None:
    with pytest.raises(StrangerCluster, match="belongs to"):
        await head.cluster(uid="another").connect()
    with pytest.raises(StrangerCluster, match="session"):
        await head.cluster(session="session_of_yesterday").connect()
    assert probe_head(head.ready.address, head.token, cluster_uid=UID).ours
    assert not probe_head(head.ready.address, head.token, cluster_uid="another").ours
    with GcsReader(head.ready.address, "not the token") as reader, pytest.raises(StrangerCluster):
        reader.state()


async def test_without_a_connection_nothing_is_said(head: Head) -> None:
    with pytest.raises(ClusterUnreachable, match="not connected"):
        await head.cluster().state()


def test_another_terminal_finds_the_cluster_by_auto(head: Head) -> None:
    root = head.folder / "terminal"
    environment = {
        name: value
        for name, value in head.environment.items()
        if name != "RAY_ADDRESS" and "AUTH_MODE" not in name
    } | {"RAY_TMPDIR": str(root)}
    # Whatever other clusters this host has, the file that this terminal's Ray reads is free.
    if note := claim_address_file(head.ready.address, environment):
        assert "RAY_AUTH_MODE=token" in note
        environment["RAY_AUTH_MODE"] = "token"
    assert claim_address_file(head.ready.address, environment) == ""
    shown = subprocess.run(
        [
            sys.executable,
            "-c",
            "import ray; ray.init(address='auto'); print('port', ray.get_runtime_context().gcs_address)",
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert shown.stdout.split("port ")[1].strip().endswith(head.ready.address.rpartition(":")[2])
    release_address_file(head.ready.address, environment)
    assert not (root / "ray" / "ray_current_cluster").exists()


def test_a_job_can_be_submitted(head: Head) -> None:
    shown = head.run(
        *(sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--"),
        *("python", "-c", "print('from' + ' the job')"),
        timeout_s=60,
    )
    assert "from the job" in shown


def test_the_head_carries_what_it_was_given(head: Head) -> None:
    assert head.ready.python_version.startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert head.ready.dashboard_url.startswith("http://127.0.0.1:")
    assert re.fullmatch(r"[0-9a-f]{56}", head.ready.node_id)
