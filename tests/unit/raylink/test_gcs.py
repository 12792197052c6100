"""The link to a GCS: versions, deadlines, who is a stranger. Against a stand-in server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heliostat.model.instance import DrainReason, InstanceState, NodeStatus
from heliostat.model.node_type import Policy
from heliostat.model.snapshot import RayState
from heliostat.ports.cluster import Cluster
from heliostat.ports.errors import ClusterUnreachable, StrangerCluster
from heliostat.raylink.gcs import GcsCluster, GcsSettings
from heliostat.raylink.probe import HeadProbe, probe_head
from heliostat.raylink.ready import HeadReady, wait_until_ready
from heliostat.testing.clock import ManualClock
from tests.unit.raylink.builders import SESSION, TOKEN, FakeGcs, pb
from tests.unit.raylink.shapes import instance, node_type, quiet

DEADLINE_S = 1.0
BACK_S = 5.0


@pytest.fixture
async def gcs() -> AsyncIterator[FakeGcs]:
    server = FakeGcs()
    await server.start()
    yield server
    await server.stop()


def link(gcs: FakeGcs, **changes: object) -> GcsCluster:
    fields: dict[str, object] = {
        "address": gcs.address,
        "cluster_uid": "uid",
        "started_by": "heliostat 1",
        "token": lambda: TOKEN,
        "clock": ManualClock(),
        "serve_metrics": False,
        "deadline_s": DEADLINE_S,
    }
    return GcsCluster(GcsSettings(**{**fields, **changes}))  # type: ignore[arg-type]


async def connected(gcs: FakeGcs, **changes: object) -> GcsCluster:
    made = link(gcs, **changes)
    await made.connect()
    return made


async def test_connecting_claims_a_cluster_that_has_no_uid(gcs: FakeGcs) -> None:
    cluster: Cluster = await connected(gcs)
    assert gcs.store[b"heliostat", b"cluster_uid"] == b"uid"
    assert gcs.store[b"heliostat", b"started_by"] == b"heliostat 1"
    await cluster.aclose()


async def test_reports_grow_past_what_ray_has_seen(gcs: FakeGcs) -> None:
    gcs.kept.autoscaler_state_version = 41
    cluster = await connected(gcs)
    await cluster.report(quiet(instance("la.0", InstanceState.QUEUED)))
    assert gcs.kept.autoscaler_state_version == 42
    assert [one.details for one in gcs.kept.pending_instances] == ["queued: demand"]
    # Someone else reported meanwhile: the next look says so.
    gcs.kept.autoscaler_state_version = gcs.state.last_seen_autoscaler_state_version = 90
    await cluster.state()
    await cluster.report(quiet())
    assert gcs.kept.autoscaler_state_version == 91
    await cluster.aclose()


@pytest.mark.parametrize(
    ("drivers", "count"),
    [
        ([], 0),
        ([("", False), ("d2c8-anonymous", False), ("d2c8-anonymous", True)], 2),
        ([("_ray_internal_dashboard", False)], 0),
        ([("heliostat_gateway", False), ("heliostat_gateway", True)], 0),
        ([("heliostat_gateway", False), ("notebook", False)], 1),
    ],
)
async def test_drivers_of_people_are_counted(
    gcs: FakeGcs, drivers: list[tuple[str, bool]], count: int
) -> None:
    """Not Ray's own, and not a gateway's, which is there whether anybody calls or not."""
    gcs.drivers = drivers
    cluster = await connected(gcs)
    assert await cluster.drivers() == count
    await cluster.aclose()


async def test_a_stranger_is_refused(gcs: FakeGcs) -> None:
    gcs.store[b"heliostat", b"cluster_uid"] = b"another"
    for changes, words in (
        ({}, "belongs to another"),
        ({"session_name": "session_0"}, "another session"),
        ({"token": lambda: "wrong"}, "refuses our token"),
    ):
        made = link(gcs, **changes)
        with pytest.raises(StrangerCluster, match=words):
            await made.connect()
        await made.aclose()
    assert gcs.store[b"heliostat", b"cluster_uid"] == b"another"


async def test_another_sessions_head_on_our_address_is_a_stranger(gcs: FakeGcs) -> None:
    cluster = await connected(gcs)
    assert cluster.session_name == SESSION
    gcs.state.cluster_session_name = "session_2"
    with pytest.raises(StrangerCluster, match="session_2"):
        await cluster.state()
    with pytest.raises(StrangerCluster):
        await cluster.connect()
    await cluster.aclose()


async def test_a_hanging_gcs_is_unreachable_within_the_deadline(gcs: FakeGcs) -> None:
    cluster = await connected(gcs)
    gcs.slow = True
    with pytest.raises(ClusterUnreachable, match="deadline_exceeded"):
        await cluster.state()
    await cluster.aclose()


async def test_a_gcs_that_is_back_is_heard_again(gcs: FakeGcs) -> None:
    cluster = await connected(gcs)
    await gcs.stop()
    with pytest.raises(ClusterUnreachable):
        await cluster.state()
    await gcs.start()
    state = await asyncio.wait_for(_heard(cluster), BACK_S)
    assert state.session_name == SESSION
    await cluster.aclose()


async def _heard(cluster: GcsCluster) -> RayState:
    while True:
        try:
            return await cluster.state()
        except ClusterUnreachable:
            # Until its next try the channel refuses at once.
            await asyncio.sleep(0.02)


async def test_before_connecting_nothing_is_asked(gcs: FakeGcs) -> None:
    with pytest.raises(ClusterUnreachable, match="not connected"):
        await link(gcs).state()


async def test_drain_speaks_rays_units_and_passes_its_answer_on(gcs: FakeGcs) -> None:
    cluster = await connected(gcs)
    gcs.drain_reply = pb.DrainNodeReply(is_accepted=False, rejection_reason_message="busy")
    reply = await cluster.drain("01ff", reason=DrainReason.IDLE, message="idle", deadline_s=None)
    assert (reply.accepted, reply.message) == (False, "busy")
    await cluster.drain("01ff", reason=DrainReason.PREEMPTION, message="lease", deadline_s=12.5)
    first, second = gcs.drains
    assert (first.node_id, first.reason, first.deadline_timestamp_ms) == (b"\x01\xff", 1, 0)
    assert (second.reason, second.reason_message, second.deadline_timestamp_ms) == (2, "lease", 12500)
    await cluster.aclose()


async def test_rays_deadlines_are_by_the_hosts_wall_clock(gcs: FakeGcs) -> None:
    clock = ManualClock()
    clock.ahead_s = 3600.0
    cluster = await connected(gcs, clock=clock)
    await cluster.drain("01ff", reason=DrainReason.PREEMPTION, message="lease", deadline_s=12.5)
    assert gcs.drains[0].deadline_timestamp_ms == 3_612_500
    await cluster.aclose()


async def test_the_heartbeat_changes_across_controllers(gcs: FakeGcs) -> None:
    beats = []
    for _ in range(2):
        cluster = await connected(gcs)
        for _ in range(2):
            await cluster.heartbeat()
            beats.append(gcs.store[b"heliostat", b"heartbeat"])
        await cluster.aclose()
    assert beats == [b"1", b"2", b"3", b"4"]


async def test_claims_are_forgotten_one_by_one(gcs: FakeGcs) -> None:
    cluster = await connected(gcs)
    for name in ("la.1", "la.10"):
        gcs.store[b"heliostat", f"claim:{name}".encode()] = b"host:1:x"
    await cluster.forget(["la.1", "never.0"])
    assert (b"heliostat", b"claim:la.1") not in gcs.store
    assert (b"heliostat", b"claim:la.10") in gcs.store
    await cluster.aclose()


async def test_the_config_tells_the_running_heads_own_resources(gcs: FakeGcs) -> None:
    gcs.state.node_states.add(
        node_id=b"\x01", status=1, total_resources={"CPU": 3, "node:__internal_head__": 1}
    )
    cluster = await connected(gcs)
    policy = Policy((node_type("small", {"CPU": 1}),), max_workers=2, idle_timeout_s=1.0)
    await cluster.report_config(policy, node_type("head", {"CPU": 1}))
    groups = {one.name: dict(one.resources) for one in gcs.config.node_group_configs}
    assert groups == {"small": {"CPU": 1}, "head": {"CPU": 3}}
    await cluster.aclose()


async def test_metrics_are_announced_and_lines_written(gcs: FakeGcs, tmp_path: Path) -> None:
    cluster = await connected(gcs, serve_metrics=True, metrics_port=0, log_dir=str(tmp_path))
    assert gcs.store[b"", b"AutoscalerMetricsAddress"].decode() == cluster.metrics_address
    await cluster.state()
    await cluster.report(quiet())
    assert "heliostat 1 scales this cluster" in (tmp_path / "monitor.log").read_text()
    await cluster.aclose()


async def test_a_log_folder_that_refuses_costs_only_the_lines(gcs: FakeGcs, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    cluster = await connected(gcs, log_dir=str(blocked / "logs"))
    await cluster.report(quiet())
    assert gcs.kept.autoscaler_state_version == 1
    await cluster.aclose()


async def test_probe_says_who_answers(gcs: FakeGcs) -> None:
    await (cluster := await connected(gcs)).aclose()
    gcs.store[b"cluster", b"CLUSTER_METADATA"] = b'{"ray_version": "9.9", "python_version": "3.11.7"}'
    gcs.store[b"dashboard", b"dashboard"] = b"127.0.0.1:8265"
    gcs.state.node_states.add(node_id=b"\x01", status=1)
    gcs.state.node_states.add(node_id=b"\x02", status=2)
    look = await _probe(gcs, uid="uid", session=cluster.session_name or "")
    assert (look.alive, look.ours, look.detail, look.nodes) == (True, True, "", 1)
    assert (look.ray_version, look.python_version) == ("9.9", "3.11.7")
    assert look.dashboard_url == "http://127.0.0.1:8265"
    assert "belongs to uid" in (await _probe(gcs, uid="other")).detail
    assert "another session" in (await _probe(gcs, uid="uid", session="session_0")).detail
    await gcs.stop()
    gone = await _probe(gcs, uid="uid")
    assert (gone.alive, gone.ours) == (False, False)
    assert NodeStatus.DEAD.value not in gone.detail


async def _probe(gcs: FakeGcs, *, uid: str, session: str = "") -> HeadProbe:
    return await asyncio.to_thread(
        probe_head, gcs.address, TOKEN, cluster_uid=uid, session_name=session, deadline_s=DEADLINE_S
    )


async def test_ready_tells_a_new_head_from_another_with_the_same_token(gcs: FakeGcs, tmp_path: Path) -> None:
    def wait() -> HeadReady:
        return wait_until_ready(gcs.address, token=TOKEN, temp_dir=str(tmp_path), deadline_s=BACK_S)

    gcs.store[b"dashboard", b"dashboard"] = b"127.0.0.1:8265"
    gcs.state.node_states.add(
        node_id=b"\x01", status=1, node_ip_address="10.0.0.1", total_resources={"node:__internal_head__": 1}
    )
    with pytest.raises(StrangerCluster, match="another Ray cluster"):
        await asyncio.to_thread(wait)
    (tmp_path / SESSION).mkdir()
    ready = await asyncio.to_thread(wait)
    assert (ready.session_name, ready.node_id, ready.node_ip) == (SESSION, "01", "10.0.0.1")
    assert ready.log_dir == str(tmp_path / SESSION / "logs")
    assert ready.dashboard_url == "http://127.0.0.1:8265"
