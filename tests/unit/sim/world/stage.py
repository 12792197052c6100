"""A small world for tests: time moves only when a test says so."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from heliostat.model.demand import Bundle
from heliostat.model.instance import LaunchRequest
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.provider import ClusterIdentity
from heliostat.sim.dice import Dice
from heliostat.sim.scenario import BackendScenario, RayScenario
from heliostat.sim.world.backend import Ground
from heliostat.sim.world.batch import BatchBackend
from heliostat.sim.world.cloud import CloudBackend
from heliostat.sim.world.ray.node import Member
from heliostat.sim.world.ray.sim import RaySim
from heliostat.sim.world.work import Ledger, Work

OURS = ClusterIdentity("sim", "uid-of-ours", "user@head")
CPU = NodeType("cpu", "b", Resources.of({"CPU": 2}), "s1", max_workers=9)


class Planned:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualAgenda:
    """`world.agenda.Agenda`: what is due happens when `advance` passes its time, in order."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._made = 0
        self._due: list[tuple[float, int, Planned, Callable[..., object], tuple[object, ...]]] = []

    def now_s(self) -> float:
        return self._now_s

    def after(self, delay_s: float, do: Callable[..., object], *args: object) -> Planned:
        assert delay_s >= 0
        self._made += 1
        planned = Planned()
        heapq.heappush(self._due, (self._now_s + delay_s, self._made, planned, do, args))
        return planned

    def advance(self, seconds: float) -> None:
        end_s = self._now_s + seconds
        while self._due and self._due[0][0] <= end_s:
            self._now_s, _, planned, do, args = heapq.heappop(self._due)
            if not planned.cancelled:
                do(*args)
        self._now_s = end_s


@dataclass
class Stage:
    """A Ray without report delay unless asked for, and backends on the same ground."""

    report_s: tuple[float, float] = (0.0, 0.0)
    seed: int = 1
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.agenda = ManualAgenda()
        self.dice = Dice(self.seed)
        self.ledger = Ledger()
        self.ray = RaySim(
            self.agenda,
            self.dice,
            RayScenario(report_s=self.report_s, call_s=(0.0, 0.0)),
            head=Member("", "head", Resources()),
            ledger=self.ledger,
            say=self.say,
        )
        self.ray.kv["cluster_uid"] = OURS.cluster_uid
        self.ground = Ground(self.agenda, self.ray, self.dice, self.say)
        self.works = 0

    def say(self, *words: object) -> None:
        self.said.append(" ".join(map(str, words)))

    def batch(self, **changed: Any) -> BatchBackend:
        calm: dict[str, Any] = {"queue_s": (0.0, 0.0), "boot_s": (2.0, 2.0), "stop_s": (1.0, 1.0)}
        scenario = BackendScenario("b", "batch", **{"call_s": (0.0, 0.0), "strangers": 0, **calm, **changed})
        backend = BatchBackend(scenario, self.ground)
        backend.open()
        return backend

    def cloud(self, **changed: Any) -> CloudBackend:
        calm: dict[str, Any] = {"boot_s": (2.0, 2.0), "stop_s": (1.0, 1.0)}
        scenario = BackendScenario("b", "cloud", **{"call_s": (0.0, 0.0), "strangers": 0, **calm, **changed})
        backend = CloudBackend(scenario, self.ground)
        backend.open()
        return backend

    def node(self, instance_id: str = "l1.0", *, labels: dict[str, str] | None = None, **units: float) -> str:
        member = Member(instance_id, "cpu", Resources.of(units or {"CPU": 2}), labels or {})
        return self.ray.join(member)

    def work(self, work_s: float = 10.0, *, count: int = 1, **changed: Any) -> list[Work]:
        """Submit tasks of one CPU, or of `bundle`."""
        made = []
        for _ in range(count):
            self.works += 1
            bundle = changed.get("bundle", Bundle(Resources.of({"CPU": 1})))
            rest = {key: value for key, value in changed.items() if key != "bundle"}
            made.append(Work(self.works, bundle, work_s, **rest))
            self.ray.scheduler.submit(made[-1])
        return made


def request(count: int = 1, launch_id: str = "l1", **changed: Any) -> LaunchRequest:
    start = {"cluster_uid": OURS.cluster_uid, "session_name": "session_0"}
    return LaunchRequest(launch_id, changed.pop("node_type", CPU), count, start, **changed)
