"""Keeps a gateway beside its cluster, in the background, for as long as that is up: `up --gateway`.

    python -m heliostat.cli.gateway_keeper CLUSTER

It starts `heliostat gateway` anew when that dies, and ends it when the cluster has gone down. It holds no
state; if it is killed itself the kernel tells the gateway, which lets its calls come to their end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

from heliostat.cli.children import Child, ChildSpec, start_child
from heliostat.cli.clusters import pick, root
from heliostat.config.places import StatePlaces, state_places
from heliostat.ports.errors import HeliostatError

RESTART_S = (0.5, 2.0, 5.0, 10.0, 30.0)
STABLE_S = 60.0
LOOK_S = 2.0
"""How often it is looked whether the cluster is still up."""

GRACE_S = 30.0
"""On top of the gateway's own `drain_timeout_s`."""

GONE_LOOKS = 3
"""A record that is just being written anew may look like none, once."""


def begin(name: str, places: StatePlaces) -> None:
    """Start a keeper for the cluster of that name; it outlives this process."""
    with places.gateway_log.open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "heliostat.cli.gateway_keeper", name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


async def keep(name: str, *, drain_s: float) -> None:
    """Keep the gateway until the cluster is down, or until this process is told to end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    gone = asyncio.create_task(_until_down(name, stop))
    deaths = 0
    while not gone.done():
        began_s = loop.time()
        child = await start_child(_spec(name))
        if await _ends_first(child, gone):
            deaths = 0 if loop.time() - began_s > STABLE_S else deaths + 1
            await asyncio.wait({gone}, timeout=RESTART_S[min(deaths, len(RESTART_S) - 1)])
        else:
            await child.end(grace_s=drain_s + GRACE_S)


async def _ends_first(child: Child, gone: asyncio.Task[None]) -> bool:
    ended = asyncio.create_task(child.wait())
    await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
    if ended.done():
        return True
    ended.cancel()
    return False


async def _until_down(name: str, stop: asyncio.Event) -> None:
    missing = 0
    while missing < GONE_LOOKS and not stop.is_set():
        try:
            await asyncio.to_thread(pick, name)
            missing = 0
        except HeliostatError:
            missing += 1
        try:
            await asyncio.wait_for(stop.wait(), LOOK_S)
        except TimeoutError:
            continue


def _spec(name: str) -> ChildSpec:
    argv = [sys.executable, "-m", "heliostat.cli.main", "gateway", name]
    return ChildSpec("gateway", argv, os.environ, state_places(root(), name).gateway_log)


def main() -> None:
    from heliostat.cli.gateway_view import spec_and_record

    name = sys.argv[1]
    spec, _ = spec_and_record(name)
    assert spec.gateway is not None
    asyncio.run(keep(name, drain_s=spec.gateway.drain_timeout_s))


if __name__ == "__main__":
    main()
