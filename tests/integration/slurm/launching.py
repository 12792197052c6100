"""Instances on a real Slurm without Ray: a provider, its node types and launches, and waits for its rows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from heliostat.model.instance import BackendInstance, BackendState, Change, LaunchRequest
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.errors import Unavailable
from heliostat.ports.provider import ClusterIdentity, ProviderContext
from heliostat.providers.slurm import SlurmProvider
from heliostat.providers.slurm.runner import LocalRunner, Output, Runner
from tests.slurm_site import SlurmSite

STAND_IN = Path(__file__).parent / "stand_in.py"
ROWS_S = 30.0
POLL_S = 0.1

Rows = Mapping[str, BackendInstance]


@dataclass
class LosesReplies:
    """A runner that loses the reply to the next `lost`: the command acts, and nobody hears of it."""

    runner: Runner
    lost: str | None = None

    @property
    def counts(self) -> Mapping[str, int]:
        return self.runner.counts

    async def run(self, argv: Sequence[str], *, stdin: str = "", deadline_s: float) -> Output:
        output = await self.runner.run(argv, stdin=stdin, deadline_s=deadline_s)
        if argv[0] == self.lost:
            self.lost = None
            raise Unavailable(f"{argv[0]}: no answer within {deadline_s:g} s")
        return output

    async def aclose(self) -> None:
        await self.runner.aclose()


@dataclass(frozen=True)
class Place:
    """One cluster's place at a site: providers made here are of that cluster, one after another."""

    site: SlurmSite
    folder: Path
    options: Mapping[str, object]

    @asynccontextmanager
    async def provider(self, *, runner: Runner | None = None) -> AsyncIterator[SlurmProvider]:
        identity = ClusterIdentity("faults", f"{self.folder.name}-of-{self.folder.parent.name}", "somebody")
        paths = (str(self.folder / "run"), str(self.folder / "logs"), str(STAND_IN))
        provider = SlurmProvider(
            ProviderContext(identity, self.options, *paths),
            runner=runner or LocalRunner(self.site.environment),
            environment=self.site.environment,
        )
        try:
            yield provider
        finally:
            await provider.aclose()


def request(launch_id: str, count: int = 1, **start: object) -> LaunchRequest:
    """Return a launch of one-CPU instances; `start` is for the stand-in."""
    memory = {"memory": 200 * 2**20}
    node_type = NodeType("cpu", "slurm", Resources.of({"CPU": 1, **memory}), shape_id="s1", max_workers=99)
    document = {"gcs_address": "127.0.0.1:6379", "resources": {"CPU": 1}, **start}
    return LaunchRequest(launch_id, node_type, count, document)


async def launched(provider: SlurmProvider, launch: LaunchRequest) -> Rows:
    """Launch, and return the rows once all of it runs."""
    outcome = await provider.apply(Change(launch=(launch,)))
    assert not outcome.failed_launches
    assert not outcome.failed_instances
    return await rows_when(provider, lambda rows: all_in(rows, launch, BackendState.RUNNING), "all run")


async def rows_when(
    provider: SlurmProvider, told: Callable[[Rows], bool], what: str, *, within_s: float = ROWS_S
) -> Rows:
    """List until `told`; fail with `what` and the last rows after `within_s`."""
    deadline_s = time.monotonic() + within_s
    while True:
        rows = {row.instance_id: row for row in await provider.instances()}
        if told(rows):
            return rows
        assert time.monotonic() < deadline_s, f"not within {within_s:g} s: {what}: {rows}"
        await asyncio.sleep(POLL_S)


def all_in(rows: Rows, launch: LaunchRequest, state: BackendState) -> bool:
    return all(key in rows and rows[key].state is state for key in launch.instance_ids)
