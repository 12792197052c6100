"""A worker that hangs before it joins, deaf to TERM and with a child: given up, ended, tried again later."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from heliostat.cli.system import tagged_processes
from heliostat.model.plan import Why
from heliostat.model.report import TypeReport
from heliostat.ports.journal import Event
from tests.integration.cluster.conftest import CLUSTER, Cluster, cluster, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

START_TIMEOUT_S = 8.0
BACKOFF_S = 5.0
"""After the first failure; the planner's own first step."""
OVERDUE = f"did not join within {START_TIMEOUT_S:.0f} s (start_timeout_s)"

# Python runs it before the bootstrap's first line, as a home folder on a dead file server would hold it up.
HANG = """
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "600"])
while True:
    time.sleep(60)
"""


def text(hanging: Path) -> str:
    hanging.mkdir()
    (hanging / "sitecustomize.py").write_text(HANG)
    name = f"hangs-{os.getpid()}"
    found = yaml.safe_load(CLUSTER.format(name=name, workers=1, idle_timeout_s=600, orphan_timeout_s=60))
    found["provider"]["backends"]["local"]["terminate_grace_s"] = 1
    found["available_node_types"]["worker"]["node_config"] |= {
        "start_timeout_s": START_TIMEOUT_S,
        "environment": {"PYTHONPATH": str(hanging)},
    }
    return str(yaml.safe_dump(found))


def test_a_worker_that_never_joins_is_given_up_and_its_type_waits(tmp_path: Path) -> None:
    with cluster(tmp_path, text(tmp_path / "hanging"), workers=1) as found:
        first = until(lambda: next(iter(events(found, "launch")), None), "a launch", 30)
        until(lambda: len(family(first.instance_id)) == 2 or None, "the bootstrap and its child", 30)
        release = until(lambda: next(iter(events(found, "release")), None), "a release", 60)
        assert release.instance_id == first.instance_id
        assert release.data["why"] == Why.START_TIMEOUT.value
        assert release.text == f"w1 {OVERDUE}: no word from the backend"
        assert release.at_s - first.at_s > START_TIMEOUT_S
        until(lambda: not family(first.instance_id) or None, "end of its processes", 30)

        waiting = until(lambda: backing_off(found), "a type that waits", 60)
        assert OVERDUE in waiting.last_error
        shown = until(lambda: status_line(found), "a status that says so", 90)
        assert OVERDUE in shown
        failed = {one.instance_id: one.error for one in found.status().failures}
        assert OVERDUE in failed[first.instance_id]

        again = until(lambda: next(iter(events(found, "launch")[1:]), None), "another try", 60)
        assert again.at_s - release.at_s >= BACKOFF_S


def family(instance_id: str) -> list[int]:
    return tagged_processes("HELIOSTAT_INSTANCE_ID", instance_id)


def events(found: Cluster, kind: str) -> list[Event]:
    return [one for one in found.client.events(limit=500) if one.kind == kind]


def backing_off(found: Cluster) -> TypeReport | None:
    (worker,) = found.status().node_types
    return worker if worker.backoff_until_s is not None else None


def status_line(found: Cluster) -> str | None:
    """Return what `heliostat status` says of the type while it waits; each failure makes that longer."""
    shown = found.command("status")
    assert shown.returncode == 0, shown.stderr
    return next((line for line in shown.stdout.splitlines() if "tried again in" in line), None)
