"""The provider alone on 64 nodes, its instances mere `sleep`s: how many commands hundreds of them take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.measuring import until
from heliostat.cli.system import SystemClock
from heliostat.control.measures import Measures
from heliostat.control.watch import BackendWatch
from heliostat.control.wiring import Timing
from heliostat.model.instance import BackendState, Change, LaunchRequest, OfferQuery
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.provider import ClusterIdentity, ProviderContext
from heliostat.providers.slurm import SlurmProvider
from heliostat.providers.slurm.runner import LocalRunner
from tests.slurm_site import SlurmSite

NODES, CPUS = 64, 8
MANY = 500
SETTINGS = (10, 100, 500)
WINDOW_S = 60.0
BACK_OFF_S = 70.0
"""2, 4, 8, 16 and 32 s lie between the first listings, and 60 s between all later ones."""
UP_S = 600.0
"""For hundreds of jobs that all start, or end, at once on two cores."""
LIST_S = 0.5

SLEEP = 'import os\nos.execvp("sleep", ["sleep", "3600"])\n'
OPTIONS = {"time_limit": 60, "partition": "main", "network": "127.0.0.0/8"}
NODE_TYPE = NodeType(
    "small", "slurm", Resources.of({"CPU": 1}), shape_id="s1", max_workers=MANY, throttles=True
)


class Launcher:
    """A provider of its own, and the runner that counts what it asks Slurm."""

    def __init__(self, site: SlurmSite, folder: Path, name: str) -> None:
        place = folder / name
        place.mkdir()
        bootstrap = place / "bootstrap.py"
        bootstrap.write_text(SLEEP)
        self.runner = LocalRunner(site.environment)
        self.provider = SlurmProvider(
            ProviderContext(
                ClusterIdentity("bench", f"{name}-of-{folder.name}", "bench"),
                OPTIONS,
                str(place / "run"),
                str(place / "logs"),
                str(bootstrap),
            ),
            runner=self.runner,
            environment=site.environment,
        )

    @property
    def asked(self) -> int:
        """How many commands it has run so far."""
        return sum(self.runner.counts.values())

    async def launch(self, count: int) -> None:
        request = LaunchRequest(
            "l000001", NODE_TYPE, count, {"gcs_address": "127.0.0.1:6379", "resources": {"CPU": 1}}
        )
        outcome = await self.provider.apply(Change(launch=(request,)))
        if outcome.failed_launches or outcome.failed_instances:
            raise SystemExit(f"Slurm did not take all: {outcome}")

    async def all_run(self, count: int) -> None:
        deadline_s = time.monotonic() + UP_S
        while True:
            rows = await self.provider.instances()
            if sum(row.state is BackendState.RUNNING for row in rows) == count:
                return
            if time.monotonic() > deadline_s:
                raise SystemExit(f"not all of {count} jobs ran within {UP_S:.0f} s")
            await asyncio.sleep(LIST_S)


def launch_many(site: SlurmSite, folder: Path) -> dict[str, float]:
    """Return how 500 instances get into Slurm: sbatch calls and seconds, and the seconds of a simple loop."""
    began_s = time.time()
    launcher = Launcher(site, folder, "many")

    async def launch() -> None:
        await launcher.launch(MANY)
        await launcher.provider.aclose()

    asyncio.run(launch())
    ours_s = until("all jobs", lambda: time.time() if len(site.jobs()) >= MANY else None) - began_s
    calls = launcher.runner.counts["sbatch"]
    site.cancel_all(deadline_s=UP_S)
    before = len(site.jobs())
    began_s = time.time()
    for _ in range(MANY):
        site.run("sbatch", "--time=60", "--output=/dev/null", "--chdir=/", "--wrap=sleep 3600")
    all_s = until("all jobs", lambda: time.time() if len(site.jobs()) >= before + MANY else None)
    site.cancel_all(deadline_s=UP_S)
    return {"sbatch_calls": calls, "s": ours_s, "naive_s": all_s - began_s}


def calls_per_min(site: SlurmSite, folder: Path, found: dict[str, Any]) -> None:
    """Put Slurm commands in a minute into `found`: when nothing happens, while jobs come, once they run."""
    found |= {"quiet": asyncio.run(_quiet(Launcher(site, folder, "quiet"))), "scaling": {}}
    for count in SETTINGS:
        scaling, running = asyncio.run(_with(Launcher(site, folder, f"jobs{count}"), count))
        found["scaling"][str(count)], found[str(count)] = scaling, running
        if count != SETTINGS[-1]:
            site.cancel_all(deadline_s=UP_S)


async def _quiet(launcher: Launcher) -> float:
    async with _watched(launcher):
        await asyncio.sleep(BACK_OFF_S)
        calls = await _counted(launcher)
    await launcher.provider.aclose()
    return calls


async def _with(launcher: Launcher, count: int) -> tuple[float, float]:
    async with _watched(launcher) as watch:
        before = launcher.asked
        await launcher.launch(count)
        watch.poke()
        scaling = await _counted(launcher, since=before)
    await launcher.all_run(count)
    async with _watched(launcher):
        running = await _counted(launcher)
    await launcher.provider.aclose()
    return scaling, running


@asynccontextmanager
async def _watched(launcher: Launcher) -> AsyncIterator[BackendWatch]:
    """List as the controller's loop does, from often to seldom, while the block runs."""
    watch = BackendWatch(launcher.provider, clock=SystemClock(), telemetry=Measures(), timing=Timing())
    watch.queries = (OfferQuery(NODE_TYPE, MANY),)
    watching = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _counted(launcher: Launcher, *, since: int | None = None) -> float:
    before = launcher.asked if since is None else since
    await asyncio.sleep(WINDOW_S)
    return (launcher.asked - before) * 60 / WINDOW_S
