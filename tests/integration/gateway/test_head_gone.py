"""A head that is killed: what runs is lost at once, what comes is refused, and nothing hangs."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time
from pathlib import Path

import pytest

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.work import workplace
from heliostat.gateway.work.workplace import Workplace, WorkSettings
from heliostat.model.gateway import Sandbox, SandboxKind
from tests.integration.cluster.conftest import CLUSTER, cluster
from tests.integration.gateway.test_work_on_ray import begun, driver_of, script, status_of

pytestmark = [pytest.mark.integration, pytest.mark.nightly, pytest.mark.timeout(240)]

TOLD_WITHIN_S = 15.0


async def test_a_killed_head_loses_calls_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workplace, "READY_TIMEOUT_S", 3.0)
    text = CLUSTER.format(name=f"it-gw-{os.getpid()}", workers=1, idle_timeout_s=20, orphan_timeout_s=60)
    with cluster(tmp_path, text) as found:
        assert found.record.head is not None
        settings = WorkSettings(lambda: driver_of(found), sandbox=Sandbox(SandboxKind.NONE))
        work = Workplace(settings, functools.partial(asyncio.to_thread, status_of, found))
        work.start()
        event, say = begun()
        calling = asyncio.create_task(script(work, "import time\ntime.sleep(300)", say=say))
        await event.wait()
        began_s = time.monotonic()
        for pid in children_of(found.record.head.pid, {"gcs_server", "raylet"}):
            os.kill(pid, signal.SIGKILL)
        assert await code_of(calling) is Code.LOST
        assert time.monotonic() - began_s < TOLD_WITHIN_S
        assert await code_of(asyncio.create_task(script(work, "result = 1"))) is Code.UNAVAILABLE
        await work.aclose(0.0)


async def code_of(calling: asyncio.Task[object]) -> Code:
    with pytest.raises(CallError) as error:
        await calling
    return error.value.code


def children_of(parent: int, names: set[str]) -> list[int]:
    """Return the children of a process that bear one of `names`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "stat").read_text() if entry.name.isdigit() else ""
        except OSError:
            continue
        name, _, rest = words.partition("(")[2].rpartition(")")
        if name in names and int(rest.split()[1]) == parent:
            found.append(int(entry.name))
    return found
