"""Ray's own reconciler and instance manager, with our scheduler in the place of theirs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from ray.autoscaler.v2.autoscaler import Autoscaler
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.instance_manager.instance_manager import InstanceManager
from ray.autoscaler.v2.instance_manager.instance_storage import InstanceStorage
from ray.autoscaler.v2.instance_manager.reconciler import Reconciler
from ray.autoscaler.v2.instance_manager.storage import InMemoryStorage
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler

from heliostat.raylink.scheduler import HeliostatScheduler, use_in
from tests.unit.raylink.asks import Status, ask, head, node_type, pending, running, scheduler
from tests.unit.raylink.builders import counted, pb

CPU_1 = {"CPU": 1}
EMPTY: list[str] = []
CONFIG = {
    "cluster_name": "c",
    "max_workers": 3,
    "idle_timeout_minutes": 1,
    "provider": {"type": "external", "module": "not.Used"},
    "available_node_types": {
        "head": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "one": {"resources": CPU_1, "node_config": {}, "max_workers": 5},
    },
    "head_node_type": "head",
    "file_mounts": {},
    "cluster_synced_files": EMPTY,
    **{
        f"{part}_commands": EMPTY
        for part in (
            "setup",
            "head_setup",
            "worker_setup",
            "initialization",
            "head_start_ray",
            "worker_start_ray",
        )
    },
}


class Ray:
    """A round of Ray's autoscaler, from its instances and its nodes to its instances."""

    def __init__(self, *instances: Any) -> None:
        self.storage = InstanceStorage(cluster_id="c", storage=InMemoryStorage())
        self.storage.batch_upsert_instances([one.im_instance for one in instances])
        self.manager = InstanceManager(self.storage, instance_status_update_subscribers=[])
        self.nodes = [one.ray_node for one in instances if one.ray_node is not None]
        self.scheduler: Any = scheduler()

    def round(self, *demand: Any) -> Any:
        state = pb.AutoscalingState()
        Reconciler._scale_cluster(
            autoscaling_state=state,
            instance_manager=self.manager,
            cloud_resource_monitor=CloudResourceMonitor(),
            ray_state=pb.ClusterResourceState(node_states=self.nodes, pending_resource_requests=demand),
            scheduler=self.scheduler,
            autoscaling_config=AutoscalingConfig(CONFIG, skip_content_hash=True),
            cloud_provider=None,
        )
        return state

    def statuses(self) -> Counter[tuple[str, str]]:
        found, _ = self.storage.get_instances()
        return Counter((one.instance_type, Status.InstanceStatus.Name(one.status)) for one in found.values())


def test_what_is_missing_is_queued_within_the_limits() -> None:
    ray = Ray(head())
    state = ray.round(counted(9, CPU_1))
    assert ray.statuses() == {("head", "RAY_RUNNING"): 1, ("one", "QUEUED"): 3}
    assert len(state.infeasible_resource_requests) == 6
    assert ray.round(counted(3, CPU_1)).infeasible_resource_requests == []
    assert ray.statuses() == {("head", "RAY_RUNNING"): 1, ("one", "QUEUED"): 3}


def test_what_is_idle_is_asked_to_stop() -> None:
    ray = Ray(head(), running("1", "one", CPU_1, idle_s=61), running("2", "one", CPU_1, idle_s=5))
    ray.round()
    assert ray.statuses()[("one", "RAY_STOP_REQUESTED")] == 1
    assert ray.statuses()[("one", "RAY_RUNNING")] == 1


def too_many() -> Ray:
    """Five where four are allowed in all, of which none can be stopped just now."""
    asked = [pending(str(one), "one", status=Status.REQUESTED) for one in range(4)]
    return Ray(head(), *asked)


def test_what_cannot_be_stopped_stays_until_it_can() -> None:
    ray = too_many()
    ray.round()
    assert ray.statuses()[("one", "REQUESTED")] == 4


def test_rays_own_scheduler_breaks_the_round_there() -> None:
    ray = too_many()
    ray.scheduler = ResourceDemandScheduler()
    with pytest.raises(AssertionError, match="Invalid status transition"):
        ray.round()


class Lines:
    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def log_cluster_scheduling_update(self, **what: Any) -> None:
        self.said.append(what)


def test_drivers_are_told() -> None:
    lines = Lines()
    one = node_type("one", CPU_1)
    found = scheduler(event_logger=lines).schedule(ask([one], demand=[CPU_1, {"GPU": 1}]))
    (said,) = lines.said
    assert said["launch_requests"] == found.to_launch
    assert said["infeasible_requests"] == found.infeasible_resource_requests


def test_use_in_an_autoscaler() -> None:
    autoscaler = Autoscaler.__new__(Autoscaler)
    autoscaler._event_logger = Lines()
    autoscaler._scheduler = ResourceDemandScheduler()
    ours = use_in(autoscaler)
    assert autoscaler._scheduler is ours
    assert isinstance(ours, HeliostatScheduler)
    ours.schedule(ask([node_type("one", CPU_1)], demand=[CPU_1]))
    assert len(autoscaler._event_logger.said) == 1


def test_a_ray_that_keeps_its_scheduler_elsewhere_is_refused() -> None:
    with pytest.raises(TypeError, match="keeps no scheduler"):
        use_in(object())
