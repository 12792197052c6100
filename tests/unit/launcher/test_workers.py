"""The node provider of Ray's own autoscaler, over a real control socket, and inside Ray's v2 adapter."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_NODE_STATUS, TAG_RAY_USER_NODE_TYPE

from heliostat.api.client import NotRunning
from heliostat.api.server import create_app, serve
from heliostat.launcher.workers import WorkerProvider
from heliostat.ports.errors import Refused
from tests.unit.api.fakes import FakeOperations

FOR_CPU = {TAG_RAY_USER_NODE_TYPE: "cpu", "ray-launch-request": "r1"}


@dataclass
class FakeProvision:
    """A controller with room for `room` instances; they run at once."""

    room: int = 4
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    given_back: list[str] = field(default_factory=list)
    blind: bool = False

    async def instances(self) -> dict[str, Any]:
        if self.blind:
            raise Refused("conflict", "the controller has just begun and has not looked around yet")
        head = row("head", "head")
        return {"head": head, "instances": list(self.rows.values())}

    async def create(self, node_type: str, count: int, /) -> dict[str, Any]:
        free = min(count, self.room - len(self.rows))
        ids = [f"l{len(self.rows) + index}.0" for index in range(free)]
        self.rows.update({one: row(one, node_type, running=False) for one in ids})
        return {"instance_ids": ids, "refused": count - free, "why": "no room" if free < count else ""}

    async def terminate(self, instance_ids: Sequence[str], /) -> dict[str, Any]:
        self.given_back += instance_ids
        return {"instance_ids": list(instance_ids)}


def row(instance_id: str, node_type: str, *, running: bool = True) -> dict[str, Any]:
    return {
        "instance_id": instance_id,
        "node_type": node_type,
        "running": running,
        "node_id": f"node-{instance_id}" if running else "",
        "ip": "127.0.0.1" if running else "",
    }


@contextlib.contextmanager
def served(provision: FakeProvision, path: Path) -> Iterator[None]:
    """Serve from a thread of its own, as the controller is a process of its own."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        async with serve(create_app(FakeOperations(), provision), path):
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@pytest.fixture
def provision() -> FakeProvision:
    return FakeProvision()


@pytest.fixture
def provider(provision: FakeProvision, tmp_path: Path) -> Iterator[WorkerProvider]:
    tmp_path.chmod(0o700)
    path = tmp_path / "control.sock"
    with served(provision, path):
        yield WorkerProvider({"control_socket": str(path)}, "demo")


def test_the_head_and_what_was_asked_for_are_listed(provider: WorkerProvider) -> None:
    assert list(provider.create_node({}, FOR_CPU, 2)) == ["l0.0", "l1.0"]
    assert provider.non_terminated_nodes({}) == ["head", "l0.0", "l1.0"]
    assert provider.non_terminated_nodes({TAG_RAY_NODE_KIND: "worker"}) == ["l0.0", "l1.0"]
    tags = provider.node_tags("l0.0")
    assert (tags[TAG_RAY_USER_NODE_TYPE], tags[TAG_RAY_NODE_STATUS]) == ("cpu", "uninitialized")
    assert tags["ray-launch-request"] == "r1"


def test_a_node_is_known_by_rays_id_once_it_runs(provider: WorkerProvider, provision: FakeProvision) -> None:
    provider.create_node({}, FOR_CPU, 1)
    provider.non_terminated_nodes({})
    assert (provider.is_running("l0.0"), provider.internal_ip("l0.0")) == (False, "")
    provision.rows["l0.0"] = row("l0.0", "cpu")
    provider.non_terminated_nodes({})
    assert (provider.is_running("l0.0"), provider.internal_ip("l0.0")) == (True, "node-l0.0")
    assert provider.node_tags("l0.0")[TAG_RAY_NODE_STATUS] == "up-to-date"


def test_of_five_four_come_and_the_reason_is_raised(provider: WorkerProvider) -> None:
    with pytest.raises(NodeLaunchException, match="1 of 5: no room"):
        provider.create_node_with_resources_and_labels({}, FOR_CPU, 5, {"CPU": 1}, {})
    assert len(provider.non_terminated_nodes({TAG_RAY_NODE_KIND: "worker"})) == 4


def test_the_head_is_not_rays_to_end(provider: WorkerProvider, provision: FakeProvision) -> None:
    provider.terminate_nodes(["head"])
    provider.terminate_nodes(["head", "l0.0"])
    assert provision.given_back == ["l0.0"]


def test_what_is_gone_is_terminated(provider: WorkerProvider, provision: FakeProvision) -> None:
    provider.create_node({}, FOR_CPU, 1)
    provider.non_terminated_nodes({})
    provision.rows.clear()
    provider.non_terminated_nodes({})
    assert provider.is_terminated("l0.0")


def test_what_is_asked_for_while_a_listing_is_on_its_way_keeps_its_tags(
    provider: WorkerProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = provider._controller.provided()

    def meanwhile() -> dict[str, Any]:
        provider.create_node({}, FOR_CPU, 1)
        return before

    with monkeypatch.context() as patched:
        patched.setattr(provider._controller, "provided", meanwhile)
        assert provider.non_terminated_nodes({}) == ["head"]
    assert provider.non_terminated_nodes({}) == ["head", "l0.0"]
    assert provider.node_tags("l0.0")["ray-launch-request"] == "r1"


def test_a_controller_that_knows_nothing_yet_is_no_empty_list(
    provider: WorkerProvider, provision: FakeProvision
) -> None:
    provision.blind = True
    with pytest.raises(Refused):
        provider.non_terminated_nodes({})


def test_nor_is_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        WorkerProvider({"control_socket": str(tmp_path / "none")}, "demo").non_terminated_nodes({})


def test_rays_v2_adapter_sees_the_four_and_the_refusal(provider: WorkerProvider, tmp_path: Path) -> None:
    from ray.autoscaler.v2.instance_manager.node_provider import LaunchNodeError, NodeProviderAdapter

    class Config:
        def get_cached_autoscaling_config(self) -> Config:
            return self

        def get_cloud_node_config(self, _: str) -> dict[str, Any]:
            return {}

        get_node_resources = get_node_labels = get_cloud_node_config

        def get_config(self, _: str, default: Any = None) -> Any:
            return default or {}

    adapter = NodeProviderAdapter(v1_provider=provider, config_reader=Config())
    adapter._launch_nodes_by_type("cpu", 5, "r1")
    [error] = adapter.poll_errors()
    assert isinstance(error, LaunchNodeError)
    assert "no room" in str(error.__cause__)
    found = adapter.get_non_terminated()
    assert sorted(found) == ["head", "l0.0", "l1.0", "l2.0", "l3.0"]
    assert {one.request_id for name, one in found.items() if name != "head"} == {"r1"}
