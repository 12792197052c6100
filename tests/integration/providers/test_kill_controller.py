"""kill -9 of the process that holds the local provider, at any moment: nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from heliostat.model.instance import BackendState, Change, LaunchRequest
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.provider import ClusterIdentity, Outcome, ProviderContext
from heliostat.providers.local import LocalProvider, create
from heliostat.providers.local.processes import families

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

BOOTSTRAP = """
import json, os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
start = json.load(open(sys.argv[1]))
with open(start["status_file"] + ".new", "w") as file:
    json.dump({"state": "running"}, file)
os.replace(start["status_file"] + ".new", start["status_file"])
time.sleep(300)
"""
CONTROLLER = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
import test_kill_controller as here
from pathlib import Path
async def main():
    provider = here.make(Path(sys.argv[2]))
    print("ready", flush=True)
    await provider.apply(here.Change(launch=(here.REQUEST,)))
    await asyncio.sleep(300)
asyncio.run(main())
"""
WORKERS = 6
KILLED_AFTER_S = (0.0, 0.004, 0.01, 0.02, 0.04, 0.08, 0.2)
GPU = NodeType("gpu", "local", Resources.of({"GPU": 1, "memory": 1}), "s", max_workers=WORKERS)
REQUEST = LaunchRequest("l1", GPU, WORKERS, {})


def make(place: Path) -> LocalProvider:
    identity = ClusterIdentity("demo", f"uid-{place}", "me")
    options = {"gpus": WORKERS + 1, "cpus": 4, "memory": "4GiB", "terminate_grace_s": 10}
    bootstrap = str(place / "bootstrap.py")
    return create(ProviderContext(identity, options, str(place), str(place / "logs"), bootstrap, {"GPU": 1}))


@pytest.mark.parametrize("after_s", KILLED_AFTER_S)
async def test_nothing_is_lost_or_doubled(after_s: float, tmp_path: Path) -> None:
    (tmp_path / "bootstrap.py").write_text(BOOTSTRAP)
    await asyncio.to_thread(_run_and_kill, tmp_path, after_s)
    provider = make(tmp_path)
    try:
        await _takes_up(provider, tmp_path)
    finally:
        await _ends_all(provider)
        await provider.aclose()
    assert families(f"uid-{tmp_path}", {}) == {}


def _run_and_kill(place: Path, after_s: float) -> None:
    command = [sys.executable, "-c", CONTROLLER, str(Path(__file__).parent), str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "COLUMNS": "80"}) as controller:
        assert controller.stdout is not None
        assert controller.stdout.readline() == b"ready\n"
        time.sleep(after_s)
        controller.kill()


async def _takes_up(provider: LocalProvider, place: Path) -> None:
    assert await provider.apply(Change(launch=(REQUEST,))) == Outcome()
    async with asyncio.timeout(60):
        while True:
            rows = await provider.instances()
            if all(row.state is not BackendState.STARTING for row in rows):
                break
            await asyncio.sleep(0.05)
    assert sorted(row.instance_id for row in rows) == sorted(REQUEST.instance_ids)
    assert sorted(row.slot or "" for row in rows) == [f"GPU {number}" for number in range(1, WORKERS + 1)]
    assert len({row.native_id for row in rows}) == WORKERS
    sizes = {key: len(family) for key, family in families(f"uid-{place}", {}).items()}
    alive = {row.instance_id for row in rows if row.state is BackendState.RUNNING}
    assert sizes == dict.fromkeys(alive, 1)
    # At most the one that was being started then has no process, and says so.
    never = [row for row in rows if row.state is BackendState.FAILED]
    assert len(never) <= 1
    assert all("never started" in (row.detail or "") for row in never)


async def _ends_all(provider: LocalProvider) -> None:
    rows = await provider.instances()
    await provider.apply(Change(terminate=tuple(row.instance_id for row in rows)))
    async with asyncio.timeout(60):
        while await provider.instances():
            await asyncio.sleep(0.05)
