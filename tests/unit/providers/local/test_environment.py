"""What a worker's process gets."""

from __future__ import annotations

from typing import Any

import pytest

from heliostat.model.instance import LaunchRequest
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.errors import InvalidRequest
from heliostat.providers.local.environment import start_document, visible_devices, worker_environment
from heliostat.providers.local.options import LocalOptions

INHERITED = {
    "PATH": "/bin",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN_PATH": "/home/me/.ray/auth_token",
    "RAY_ADDRESS": "10.0.0.1:6379",
    "RAY_OVERRIDE_RESOURCES": '{"CPU": 64}',
    "RAY_OVERRIDE_LABELS": "{}",
    "RAY_CLOUD_INSTANCE_ID": "head",
    "RAY_NODE_TYPE_NAME": "head",
    "CUDA_VISIBLE_DEVICES": "0,1,2,3",
    "HELIOSTAT_INSTANCE_ID": "outer.0",
    "HELIOSTAT_CLUSTER_UID": "outer",
    "HYPHA_TOKEN": "the gateway's",
}


def request(**options: Any) -> LaunchRequest:
    node_type = NodeType("gpu", "local", Resources.of({"CPU": 1, "memory": 10}), "s", options=options)
    return LaunchRequest("l1", node_type, 1, {"drain_grace_s": 30}, environment={"FROM": "request", "R": "1"})


def environment(*gpus: str, **options: Any) -> dict[str, str]:
    return worker_environment(INHERITED, request(**options), instance_id="l1.0", cluster_uid="uid", gpus=gpus)


def test_a_worker_gets_its_own_identity_and_gpus_and_nothing_of_the_heads() -> None:
    assert environment("1", "2") == {
        "PATH": "/bin",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": "/home/me/.ray/auth_token",
        "FROM": "request",
        "R": "1",
        "RAY_CLOUD_INSTANCE_ID": "l1.0",
        "RAY_NODE_TYPE_NAME": "gpu",
        "CUDA_VISIBLE_DEVICES": "1,2",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "HELIOSTAT_INSTANCE_ID": "l1.0",
        "HELIOSTAT_CLUSTER_UID": "uid",
    }


def test_a_worker_without_gpus_sees_none() -> None:
    assert environment()["CUDA_VISIBLE_DEVICES"] == ""
    assert visible_devices([])["CUDA_VISIBLE_DEVICES"] == ""


def test_the_types_environment_is_added_but_never_wins_over_the_tags() -> None:
    got = environment("3", environment={"OMP_NUM_THREADS": 1, "CUDA_VISIBLE_DEVICES": "0", "FROM": "type"})
    assert got["OMP_NUM_THREADS"] == "1"
    assert got["CUDA_VISIBLE_DEVICES"] == "3"
    assert got["FROM"] == "request"
    with pytest.raises(InvalidRequest, match="environment is 'A=1'"):
        environment(environment="A=1")


def test_the_start_document_is_completed() -> None:
    options = LocalOptions(temp_root="/scratch", port_range=(21000, 22000))
    document = start_document(
        request(log_monitor=False, ray_args=["--x"]), options, instance_id="l1.0", status_file="/s"
    )
    assert document == {
        "drain_grace_s": 30,
        "log_monitor": False,
        "ray_args": ["--x"],
        "instance_id": "l1.0",
        "node_type": "gpu",
        "resources": {"CPU": 1, "memory": 10},
        "temp_root": "/scratch",
        "port_range": [21000, 22000],
        "status_file": "/s",
    }
