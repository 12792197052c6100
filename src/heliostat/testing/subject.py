"""What the conformance kit wants of a provider's test class: hooks to override; and the kit's own tools."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from heliostat.model.instance import BackendInstance, BackendState, Change, LaunchRequest
from heliostat.model.node_type import NodeType
from heliostat.ports.errors import InsufficientCapacity, InvalidRequest, ProviderError, QuotaExceeded
from heliostat.ports.provider import ClusterIdentity, Outcome, Probe, Provider
from heliostat.testing.life import Life

OURS = ClusterIdentity("conformance", "uid-of-ours", "somebody")
THEIRS = ClusterIdentity("conformance", "uid-of-theirs", "somebody")
OVER = frozenset({BackendState.ENDED, BackendState.FAILED})

Rows = dict[str, BackendInstance]
Kit = TypeVar("Kit", bound="Subject")


def on_a_loop(test: Callable[[Kit, Path], Awaitable[None]]) -> Callable[[Kit, Path], None]:
    """Make a plain test of an asynchronous one; what it launched is terminated afterwards."""

    def run(self: Kit, tmp_path: Path) -> None:
        self.lives = []

        async def bounded() -> None:
            async with asyncio.timeout(self.deadline_s):
                try:
                    await test(self, tmp_path)
                finally:
                    await self.clean_up(tmp_path)

        asyncio.run(bounded())

    run.__name__ = run.__qualname__ = getattr(test, "__name__", "test")
    run.__doc__ = test.__doc__
    return run


class Subject(ABC):
    """The hooks. Those that are abstract must be overridden; the others say what a backend can do besides.

    `capacity` is how many instances of `node_type()` fit at once, 3 at least; None where
    the backend has no limit that a test could reach. `deadline_s` bounds each test.
    `crashes` is how many awaits of a call are tried, evenly spread; None: each.
    `doubles_gone_s` is how long two may live for one id, where the backend has no idempotency key.
    `largest_gang` is how many instances may be launched `together`; None: `capacity`.
    `machine_examples` is how many random sequences of `machine_steps` calls are tried.
    """

    capacity: int | None = None
    deadline_s: float = 60.0
    crashes: int | None = None
    doubles_gone_s: float = 0.0
    largest_gang: int | None = None
    machine_examples: int = 4
    machine_steps: int = 12

    lives: list[Life]

    # The backend.

    @abstractmethod
    def make(self, place: Path, identity: ClusterIdentity) -> Provider:
        """Return a provider. With the same `place` it speaks to the same backend as before."""

    @abstractmethod
    def node_type(self) -> NodeType:
        """Return a type of which at least three instances fit."""

    def impossible_type(self) -> NodeType | None:
        """Return a type that the backend must refuse for good; None if there is none."""
        return None

    def leased_type(self) -> NodeType | None:
        """Return a type whose instances have a limited time; None if there is none."""
        return None

    def throttled_type(self, provider: Provider) -> NodeType | None:
        """Return a type of which the backend itself holds back all but the first few; None: it does not."""
        node_type = provider.complete(self.node_type()) if isinstance(provider, Probe) else self.node_type()
        return node_type if node_type.throttles else None

    def start_document(self) -> Mapping[str, object]:
        """Return the start document of a launch, without `instance_id`."""
        return {}

    async def living(self, place: Path) -> Sequence[str]:
        """Return the instance id of everything that lives in the backend for `OURS`, an entry for each.

        A backend that can have two for one id must be asked past the provider, which shows one of them.
        """
        provider = self.make(place, OURS)
        rows = await self.listed(provider)
        await provider.aclose()
        return [key for key, row in rows.items() if row.state not in OVER]

    # What happens to it.

    async def break_instance(self, place: Path, row: BackendInstance) -> None:
        """Make a running instance fail by itself; the test is skipped where that can't be done."""
        pytest.skip("this backend can't make an instance fail")

    @contextlib.asynccontextmanager
    async def failing(self, place: Path, error: type[ProviderError]) -> AsyncIterator[NodeType]:
        """While the block runs, a launch of the type that this gives is refused with `error`.

        Of itself the kit knows an impossible type and a full backend; override it for what else
        the backend can do, and leave the rest to `super()`.
        """
        if error is InvalidRequest and (impossible := self.impossible_type()) is not None:
            yield impossible
        elif error in (InsufficientCapacity, QuotaExceeded) and self.capacity is not None:
            provider, filling = self.make(place, OURS), self.request("lfilling", self.capacity)
            await self.launch(provider, filling)
            late = self.request("llate")
            found = refused(await provider.apply(Change(launch=(late,))), late)
            if not isinstance(found.get(late.instance_ids[0]), error):
                pytest.skip(f"a full backend is not told as {error.__name__} here")
            yield self.node_type()
            await self.ended(provider, *filling.instance_ids)
            await provider.aclose()
        else:
            pytest.skip(f"this backend can't be made to fail with {error.__name__}")

    @contextlib.asynccontextmanager
    async def lagging(self, place: Path) -> AsyncIterator[None]:
        """While the block runs, the backend lists what was there when it began, whatever is done to it."""
        pytest.skip("this backend's listing is never behind")
        yield

    async def pass_time(self) -> None:
        """Let a little time pass between two listings."""
        await asyncio.sleep(0.05)

    def now_s(self) -> float:
        """Return the time in seconds, from any moment, by which `doubles_gone_s` counts."""
        return asyncio.get_running_loop().time()

    # Tools of the tests.

    def request(self, launch_id: str = "l000001", count: int = 1) -> LaunchRequest:
        return LaunchRequest(launch_id, self.node_type(), count, self.start_document())

    def request_of(self, node_type: NodeType, count: int = 1) -> LaunchRequest:
        return replace(self.request(count=count), node_type=node_type)

    def life(self) -> Life:
        """Return a new life; what it leaves behind is cleared away after the test."""
        self.lives.append(Life())
        return self.lives[-1]

    async def listed(self, provider: Provider) -> Rows:
        rows = await provider.instances()
        by_id = {row.instance_id: row for row in rows}
        assert len(by_id) == len(rows), "an instance is listed twice"
        return by_id

    async def wait_until(self, provider: Provider, condition: Callable[[Rows], bool]) -> Rows:
        """List until `condition` holds; the deadline of the test is the limit."""
        while True:
            rows = await self.listed(provider)
            if condition(rows):
                return rows
            await self.pass_time()

    async def running(self, provider: Provider, *instance_ids: str) -> Rows:
        def all_run(rows: Rows) -> bool:
            return all(one in rows and rows[one].state is BackendState.RUNNING for one in instance_ids)

        return await self.wait_until(provider, all_run)

    async def launch(self, provider: Provider, request: LaunchRequest) -> Rows:
        outcome = await provider.apply(Change(launch=(request,)))
        assert outcome == Outcome(), f"refused: {outcome}"
        return await self.running(provider, *request.instance_ids)

    async def ended(self, provider: Provider, *instance_ids: str) -> None:
        """Terminate what is listed of these, as often as it is listed, until none is.

        That is how the loop does it: one that was not listed yet may be listed later.
        """
        while left := tuple(one for one in await self.listed(provider) if one in instance_ids):
            assert await provider.apply(Change(terminate=left)) == Outcome()
            await self.pass_time()

    async def one_of_each(self, provider: Provider, place: Path, instance_ids: Sequence[str]) -> None:
        """Wait, as long as two may live for one id, until exactly these live, each once."""
        until_s = self.now_s() + self.doubles_gone_s
        while (found := sorted(await self.living(place))) != sorted(instance_ids):
            assert self.now_s() < until_s, f"{found} live, {list(instance_ids)} should"
            await self.listed(provider)
            await self.pass_time()

    async def clean_up(self, place: Path) -> None:
        for life in self.lives:
            await life.bury()
        for identity in (OURS, THEIRS):
            provider = self.make(place, identity)
            left = tuple(await self.listed(provider))
            if left:
                await provider.apply(Change(terminate=left))
                await self.wait_until(provider, lambda rows: not rows)
            await provider.aclose()


def refused(outcome: Outcome, request: LaunchRequest) -> dict[str, ProviderError]:
    """Return the error of each member that was not accepted."""
    whole = outcome.failed_launches.get(request.launch_id)
    if whole is not None:
        return dict.fromkeys(request.instance_ids, whole)
    return {key: error for key, error in outcome.failed_instances.items() if key in request.instance_ids}


def is_over(rows: Rows, instance_id: str) -> bool:
    """Say whether an instance that must be listed has ended or failed."""
    assert instance_id in rows, f"{instance_id} ended by itself, and is not listed any more"
    return rows[instance_id].state in OVER


def bindings(rows: Rows) -> dict[str, tuple[str, str | None]]:
    return {row.instance_id: (row.native_id, row.slot) for row in rows.values()}


def spread(count: int, most: int | None) -> list[int]:
    """Return the numbers from 0 to `count`, or `most` of them, evenly spread, both ends among them."""
    if most is None or most > count:
        return list(range(count + 1))
    return sorted({round(index * count / max(1, most - 1)) for index in range(most)})
