"""A controller without a loop: it answers from values and remembers what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from heliostat.api.server import create_app, serve
from heliostat.model.report import (
    BackendReport,
    DemandReport,
    FailureReport,
    InstanceReport,
    StatusReport,
    TypeReport,
)
from heliostat.ports.errors import Refused
from heliostat.ports.journal import Event, Lifetime, ProviderCall

NOW_S = 1_760_000_000.0


def instance(name: str, **changes: Any) -> InstanceReport:
    base = InstanceReport(
        instance_id=f"l{name}aaaa.0",
        name=name,
        node_type="gpu",
        backend="local",
        state="running",
        since_s=90.0,
        why="2 × {CPU: 1, GPU: 1} wait",
        slot="GPU 1",
        host="127.0.0.1",
        resources={"CPU": 2, "GPU": 1, "memory": 8 * 2**30},
        used={"CPU": 1, "GPU": 1},
    )
    return replace(base, **changes)


def node_type(name: str = "gpu", **changes: Any) -> TypeReport:
    base = TypeReport(name=name, backend="local", alive=1, running=1, target=2, min_workers=0, max_workers=4)
    return replace(base, **changes)


def report(**changes: Any) -> StatusReport:
    base = StatusReport(
        cluster_name="demo",
        cluster_uid="u123",
        phase="running",
        address="127.0.0.1:6379",
        dashboard_url="http://127.0.0.1:8265",
        session_name="session_1",
        controller_pid=4242,
        at_s=NOW_S,
        uptime_s=3_725.0,
        paused=False,
        cluster_idle_s=0.0,
        head={"node_type": "head", "resources": {"CPU": 0}},
        instances=[instance("w1"), instance("w2", state="starting", slot="GPU 2", used={}, resources={})],
        foreign_nodes=0,
        node_types=[node_type()],
        demands=[DemandReport("{CPU: 1, GPU: 1}", 3, 12.0, "deferred", "max_workers of gpu is 2")],
        next=["w1 may go in 4 min"],
        backends=[BackendReport("local", True, 1.0)],
        failures=[
            FailureReport("lzzz.0", "gpu", NOW_S - 300, "exit status 1", ["ImportError: no module named ray"])
        ],
        measures={"round_ms": {"p50": 1.2, "p95": 3.4}},
    )
    return replace(base, **changes)


EVENTS = [
    Event(NOW_S - 20, "launch", "launch 1 gpu: 2 tasks wait", "lw1aaaa.0", "gpu", {"count": 1}, 1),
    Event(NOW_S - 10, "state", "w1 is running", "lw1aaaa.0", "gpu", {}, 2),
    Event(NOW_S - 5, "launch", "launch 1 gpu: 1 task waits", "lw2aaaa.0", "gpu", {}, 3),
]

CALLS = [
    ProviderCall(
        1, "local", NOW_S - 20, {"launch": [{"launch_id": "lw1aaaa", "node_type": "gpu", "count": 2}]}
    ),
    ProviderCall(2, "local", NOW_S - 5, {"terminate": ["lw9.0"], "terminated": 1}, "error", 0.25, "full"),
]
LIFETIMES = [
    Lifetime("lw1aaaa.0", "gpu", "local", NOW_S - 200, "w1", NOW_S - 190, NOW_S - 185, NOW_S - 5, "idle"),
    Lifetime("lw2aaaa.0", "gpu", "local", NOW_S - 5),
]


class FakeOperations:
    """Answers as told by its attributes; `asked` lists every write."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.report = report()
        self.reports: list[StatusReport] = []
        self.recorded = list(EVENTS)
        self.asked: list[tuple[object, ...]] = []
        self.refusal: Exception | None = None
        self.hang = False
        self.applied: dict[str, Any] = {"changes": ["max_workers of gpu is 8 now, it was 4"], "again": []}
        self.added: dict[str, Any] = {"instance_ids": ["lw3aaaa.0"], "names": ["w3"], "floor": 1}

    async def status(self) -> StatusReport:
        if self.hang:
            await asyncio.sleep(0.5)
        if len(self.reports) > 1:
            return self.reports.pop(0)
        return self.reports[0] if self.reports else self.report

    async def explain(self, subject: str | None) -> dict[str, Any]:
        self._refuse()
        kind = "instance" if subject else "cluster"
        return {"subject": subject or "demo", "kind": kind, "lines": ["it came because"], "facts": {"a": 1}}

    async def events(self, after: int, limit: int, instance: str | None) -> list[Event]:
        found = [one for one in self.recorded if one.seq > after and instance in (None, one.instance_id)]
        return found[-limit:]

    async def calls(self, limit: int) -> list[ProviderCall]:
        return CALLS[-limit:]

    async def lifetimes(self, limit: int) -> list[Lifetime]:
        return LIFETIMES[-limit:]

    async def cost(self) -> dict[str, Any]:
        row = {
            "day": "2025-10-09",
            "node_type": "gpu",
            "node_s": 7200.0,
            "idle_s": 1800.0,
            "core_s": 14400.0,
            "gpu_s": 7200.0,
            "cost_usd": 5.0,
        }
        total = {key: value for key, value in row.items() if key not in ("day", "node_type")}
        return {"rows": [row], "total": total}

    async def add(self, node_type: str | None, count: int) -> dict[str, Any]:
        return self._done("add", node_type, count, answer=self.added)

    async def remove(self, instance: str, deadline_s: float | None) -> dict[str, Any]:
        return self._done(
            "remove", instance, deadline_s, answer={"instance_id": "lw1aaaa.0", "name": instance}
        )

    async def protect(self, instance: str, on: bool) -> dict[str, Any]:
        return self._done("protect", instance, on, answer={"instance_id": instance, "protected": on})

    async def pause(self, on: bool) -> dict[str, Any]:
        return self._done("pause", on, answer={"paused": on})

    async def apply(self) -> dict[str, Any]:
        return self._done("apply", answer=self.applied)

    async def down(self) -> dict[str, Any]:
        return self._done("down", answer={})

    def _done(self, *asked: object, answer: dict[str, Any]) -> dict[str, Any]:
        self._refuse()
        self.asked.append(asked)
        return answer

    def _refuse(self) -> None:
        if self.refusal is not None:
            raise self.refusal


def refuse(code: str, text: str) -> Refused:
    return Refused(code, text)


@contextlib.contextmanager
def controller(operations: FakeOperations, socket_path: Path) -> Iterator[None]:
    """Serve `operations` from a thread of its own while the block runs."""
    started = threading.Event()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def run() -> None:
        async with serve(create_app(operations), socket_path):
            started.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert started.wait(5), "the fake controller did not start"
    try:
        yield
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
        assert not thread.is_alive(), "the fake controller did not stop"
        loop.close()
