"""Calls of every kind in flight, and what becomes of each: an answer, an error, or nothing at all."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.hypha_server import HyphaServer

RUNS_S = 20.0
"""How long a call's work takes: it is under way when something is killed, and would end soon afterwards."""

HANG_S = 120.0
"""After a kill. A client gives up 30 s after it last heard of a call; a head takes 15 s to come back."""

RETRY_S = 0.5
TRY_S = 10.0
SCRIPT = f"import time\ntime.sleep({RUNS_S})\nresult = 40 + 2"


@dataclass
class Fates:
    """What became of calls: `answered`, `told` (an error of the gateway's, by code) and `cut` (one of Hypha's
    client, or of HTTP) by kind of call; those that `hang`; and how long it took
    until a new call was answered."""

    answered: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    hang: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)

    def note(self, kind: str, answer: Any) -> None:
        if answer.get("ok") and answer["value"] == 42:
            self.answered[kind] += 1
        elif not answer.get("ok") and answer.get("error", {}).get("message"):
            self.told[answer["error"]["code"]] += 1
        else:
            self.wrong.append(f"{kind}: {answer}")

    @property
    def total(self) -> int:
        counted = (self.answered, self.told, self.cut)
        return sum(map(Counter.total, counted)) + len(self.hang) + len(self.wrong)

    def text(self) -> str:
        return json.dumps(vars(self))


@dataclass(frozen=True)
class Caller:
    """A colleague's connection of her own to the gateway's service."""

    server: HyphaServer
    service_id: str
    hypha: Any
    service: Any

    @classmethod
    async def come(cls, server: HyphaServer, service_id: str) -> Caller:
        import hypha_rpc

        config = {"server_url": server.url, "token": server.token("ada"), "logger": None}
        hypha = await hypha_rpc.connect_to_server(config)
        return cls(server, service_id, hypha, await hypha.get_service(service_id))

    async def leave(self) -> None:
        await self.hypha.disconnect()

    async def running(self) -> int:
        """Return how many calls of hers are under way on a node."""
        mine = (await self.service.status())["value"]["calls"]
        return sum(not one["outcome"] and one["note"] == "running" for one in mine)

    def begin(self, each: int) -> Mapping[str, list[asyncio.Task[Any]]]:
        """Begin so many calls of each kind."""
        kinds: Mapping[str, Callable[[], Awaitable[Any]]] = {
            "waits": lambda: self.service.run_python(SCRIPT),
            "streams": self._streamed,
            "function": lambda: self.service.call("slow", {"seconds": RUNS_S}),
            "http": self._over_http,
            "later": self._later,
        }
        return {kind: [asyncio.ensure_future(call()) for _ in range(each)] for kind, call in kinds.items()}

    async def _streamed(self) -> Any:
        last = None
        async for part in await self.service.run_python(SCRIPT, stream=True):
            last = part
        return last

    async def _later(self) -> Any:
        """Begin a call, and ask for its answer until there is one, whatever happens meanwhile."""
        begun = await self.service.run_python(SCRIPT, wait=False)
        while True:
            with suppress(Exception):
                async with asyncio.timeout(TRY_S), here(self.server, self.service_id) as caller:
                    seen = await caller.service.progress(begun["call_id"])
                    if not seen["ok"] or seen["value"]["done"]:
                        return seen["value"]["answer"] if seen["ok"] else seen
            await asyncio.sleep(RETRY_S)

    async def _over_http(self) -> Any:
        return await asyncio.to_thread(self._post, "run_python", {"script": SCRIPT})

    def _post(self, function: str, body: Any) -> Any:
        workspace, _, name = self.service_id.partition("/")
        url = f"{self.server.url}/{workspace}/services/{name}/{function}"
        headers = {"Authorization": f"Bearer {self.server.token('ada')}", "Content-Type": "application/json"}
        request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers)
        with urllib.request.urlopen(request, timeout=HANG_S) as answer:
            return json.load(answer)


async def settle(calls: Mapping[str, list[asyncio.Task[Any]]], fates: Fates) -> None:
    """Wait for every call, and note its fate."""
    everything = [task for tasks in calls.values() for task in tasks]
    await asyncio.wait(everything, timeout=HANG_S)
    for kind, tasks in calls.items():
        for task in tasks:
            if not task.done():
                task.cancel()
                fates.hang.append(kind)
            elif (error := task.exception()) is None:
                fates.note(kind, task.result())
            else:
                # Hypha's client makes plain exceptions of some; whatever it is, the caller knows.
                fates.cut[f"{kind}: {type(error).__name__}"] += 1


@asynccontextmanager
async def here(server: HyphaServer, service_id: str) -> AsyncIterator[Caller]:
    """A caller who comes now and leaves with the block."""
    caller = await Caller.come(server, service_id)
    try:
        yield caller
    finally:
        await caller.leave()


async def answered_again(server: HyphaServer, service_id: str) -> None:
    """Return once a new call of somebody who comes now and tries again and again is answered."""
    async with asyncio.timeout(HANG_S):
        while True:
            # Until all is up again callers get all sorts of errors.
            with suppress(Exception):
                async with asyncio.timeout(TRY_S), here(server, service_id) as caller:
                    if (await caller.service.run_python("result = 42"))["ok"]:
                        return
            await asyncio.sleep(RETRY_S)
