"""What a caller hears while a call waits for a node."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from heliostat.gateway.work.port import Needs
from heliostat.gateway.work.waiting import PLAIN, Changes, Outlook, outlook, wanted
from heliostat.model.report import DemandReport, InstanceReport, StatusReport, TypeReport

NOW_S = 1_790_000_000.0
SHAPES = {"cpu": {"CPU": 8.0}, "gpu": {"CPU": 8.0, "GPU": 1.0}}
GPU = Needs(gpus=1.0)
HELD = TypeReport("gpu", "slurm", 0, 0, target=1, min_workers=0, max_workers=2, held="Slurm refused 3 times")


@pytest.fixture(autouse=True)
def _in_greenwich() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    yield
    os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
    time.tzset()


def report(**parts: Any) -> StatusReport:
    lists = ("instances", "node_types", "demands", "next", "backends", "failures")
    empty: dict[str, Any] = {name: [] for name in lists}
    plain = {
        "cluster_name": "c", "cluster_uid": "u", "phase": "running", "address": "", "dashboard_url": "",
        "session_name": "", "controller_pid": 1, "at_s": NOW_S, "uptime_s": 1.0, "paused": False,
        "cluster_idle_s": 0.0, "head": {}, "foreign_nodes": 0, "measures": {},
    }  # fmt: skip
    return StatusReport(**{**empty, **plain, **parts})


def instance(state: str, node_type: str = "gpu", **parts: Any) -> InstanceReport:
    return InstanceReport(
        instance_id="i1",
        name="w1",
        node_type=node_type,
        backend="slurm",
        state=state,
        since_s=1.0,
        why="",
        **parts,
    )


def demand(verdict: str, why: str, resources: dict[str, float]) -> DemandReport:
    return DemandReport(text="", count=1, waiting_s=5.0, verdict=verdict, why=why, resources=resources)


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({}, PLAIN),
        ({"instances": [instance("running")]}, PLAIN),
        ({"instances": [instance("queued", "cpu", detail="Priority")]}, PLAIN),
        ({"instances": [instance("queued", detail="Priority")]}, f"{PLAIN}: Slurm, Priority"),
        (
            {"instances": [instance("queued", detail="Priority", expected_start_s=NOW_S + 600)]},
            f"{PLAIN}: Slurm, Priority, starts about 14:23",
        ),
        (
            {"instances": [instance("queued", detail="Priority", expected_start_s=NOW_S + 86400)]},
            f"{PLAIN}: Slurm, Priority, starts about Tue 14:13",
        ),
        ({"instances": [instance("queued", expected_start_s=NOW_S - 5)]}, f"{PLAIN}: Slurm"),
        ({"instances": [instance("queued"), instance("starting")]}, f"{PLAIN}: Slurm, w1 starts now"),
        (
            {"demands": [demand("deferred", "max_workers: 2 of 2", {"CPU": 1.0, "GPU": 1.0})]},
            f"{PLAIN}: max_workers: 2 of 2",
        ),
        ({"demands": [demand("deferred", "another's", {"CPU": 4.0})]}, PLAIN),
        ({"node_types": [HELD]}, f"{PLAIN}: Slurm refused 3 times"),
    ],
)
def test_the_line(parts: dict[str, Any], line: str) -> None:
    assert outlook(report(**parts), GPU, shapes=SHAPES) == Outlook(line)


def test_a_silent_controller_costs_the_words_only() -> None:
    assert outlook(None, GPU, shapes=SHAPES) == Outlook(PLAIN)


def test_what_can_never_run_is_hopeless() -> None:
    found = outlook(
        report(demands=[demand("infeasible", "no type has 9 GPUs", {"CPU": 1.0, "GPU": 9.0})]),
        Needs(gpus=9.0),
        shapes=SHAPES,
    )
    assert found == Outlook("no node of this cluster can hold it: no type has 9 GPUs", hopeless=True)


def test_only_changes_are_said() -> None:
    said: list[str] = []
    changes = Changes(said.append)
    for text in ("a", "a", "b", "a"):
        changes.say(text)
    assert said == ["a", "b", "a"]


def test_what_ray_is_asked_for() -> None:
    assert wanted(Needs(cpus=0.5, gpus=1.0, memory_bytes=2**30)) == {
        "CPU": 0.5,
        "GPU": 1.0,
        "memory": 2.0**30,
    }
