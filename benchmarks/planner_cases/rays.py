"""What has the interface of Ray's scheduler, on a case.

Its clock starts at its `SchedulingRequest`; the instances stand before.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
from ray.autoscaler.v2.scheduler import IResourceScheduler, SchedulingRequest
from ray.autoscaler.v2.schema import AutoscalerInstance
from ray.core.generated import instance_manager_pb2

from benchmarks.planner_cases.messages import parsed
from benchmarks.planner_cases.spec import Case

im: Any = instance_manager_pb2
NO_LIMIT = 1_000_000


@dataclass(frozen=True)
class Run:
    total_s: float
    cpu_s: float
    launched: Mapping[str, int]
    unmet: int


def run(case: Case, data: bytes, scheduler: IResourceScheduler) -> Run:
    """Schedule once, with a scheduler that has not been asked before."""
    state = parsed(data)
    configs = {
        one.name: NodeTypeConfig(
            name=one.name,
            min_worker_nodes=0,
            max_worker_nodes=NO_LIMIT,
            resources=dict(one.amounts),
            labels={"ray.io/node-group": one.name, **one.labels},
        )
        for one in case.types
    }
    instances = [_instance(node) for node in state.node_states]
    tasks, gangs = list(state.pending_resource_requests), list(state.pending_gang_resource_requests)
    gc.collect()
    began_s, cpu_s = time.perf_counter(), time.process_time()
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=configs,
        max_num_nodes=NO_LIMIT,
        idle_timeout_s=60.0,
        resource_requests=tasks,
        gang_resource_requests=gangs,
        cluster_resource_constraints=[],
        current_instances=instances,
    )
    reply = scheduler.schedule(request)
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    gangs_unmet = sum(len(one.requests) for one in reply.infeasible_gang_resource_requests)
    return Run(
        total_s=took_s,
        cpu_s=cpu_s,
        launched=dict(sorted((one.instance_type, one.count) for one in reply.to_launch)),
        unmet=len(reply.infeasible_resource_requests) + gangs_unmet,
    )


def _instance(node: Any) -> AutoscalerInstance:
    return AutoscalerInstance(
        cloud_instance_id=node.instance_id,
        ray_node=node,
        im_instance=im.Instance(
            instance_id=node.instance_id,
            cloud_instance_id=node.instance_id,
            node_id=node.node_id.hex(),
            status=im.Instance.RAY_RUNNING,
            instance_type=node.ray_node_type_name,
            node_kind=im.NodeKind.WORKER,
        ),
    )
