"""The gateway put together, without a server and without a cluster: what ends it."""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.cli.system import SystemClock
from heliostat.gateway.app import Gateway, Surroundings
from heliostat.gateway.hypha import streams
from heliostat.gateway.hypha.sign_in import TextDisplay
from heliostat.gateway.work.workplace import DriverCommand, WorkSettings
from heliostat.model.gateway import GatewaySettings
from heliostat.ports.errors import HeliostatError


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a socket lies in it."""
    with tempfile.TemporaryDirectory(prefix="hg-", dir="/tmp") as made:
        yield Path(made)


def made(folder: Path) -> Gateway:
    def driver() -> DriverCommand:
        raise HeliostatError("there is no cluster")

    async def status() -> None:
        return None

    around = Surroundings(
        folder=folder,
        socket_path=folder / "socket",
        client_id="heliostat-demo",
        environ={"HYPHA_TOKEN": "opaque"},
        display=TextDisplay(io.StringIO()),
        time=SystemClock(),
        new_id=lambda: "c1",
        about={},
        facts={},
    )
    settings = GatewaySettings("http://127.0.0.1:1")
    return Gateway(settings, around, work=WorkSettings(driver), status=status)


async def test_it_runs_until_it_is_stopped(folder: Path) -> None:
    stop, gateway = asyncio.Event(), made(folder)
    running = asyncio.create_task(gateway.run(stop))
    while gateway.upkeep.problem is None:
        # There is no server: it has tried once, and goes on.
        await asyncio.sleep(0.01)
    assert not running.done()
    stop.set()
    await asyncio.wait_for(running, 10)


async def test_it_does_not_go_on_without_who_looks_after_callers_that_have_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr(streams, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(streams.CallsUnderway, "sweep", broken)
    running = asyncio.create_task(made(folder).run(asyncio.Event()))
    await asyncio.wait({running}, timeout=10)
    assert running.done()
    with pytest.raises(KeyError, match="a defect"):
        running.result()
