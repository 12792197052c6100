"""Lines that fall silent, or are slow, under calls in flight: these are answered all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heliostat.gateway.hypha import upkeep
from heliostat.gateway.hypha.upkeep import Upkeep
from tests.gateway_parts import Gateway, RulesByName, WorkOnCall, gateway
from tests.hypha_server import HyphaServer
from tests.integration.gateway.bad_line import BadLine, bad_line
from tests.integration.gateway.conftest import OWNER, RIGHTS, until
from tests.integration.gateway.keeping import kept_up

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

# Of what can't be compressed, and larger than one message.
LARGE = np.random.default_rng(1).integers(0, 256, 4_000_000, dtype=np.uint8)
SLOW_BYTES_PER_S = 1e6
"""The answer takes 4 s, more than the echoes are given here before a line is cut."""

ANSWER_S = 25.0
"""Below the 30 s after which a client gives up by itself."""


@dataclass
class Served:
    """A gateway behind a bad line, and its service as a caller sees it who has a good one."""

    parts: Gateway
    kept: Upkeep
    service: Any


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "ECHO_EVERY_S", 0.5)
    monkeypatch.setattr(upkeep, "ECHO_TIMEOUT_S", 1.0)


@asynccontextmanager
async def behind(line: BadLine, hypha: HyphaServer, folder: Path) -> AsyncIterator[Served]:
    import hypha_rpc

    parts = gateway(folder, RulesByName(RIGHTS), WorkOnCall())
    config = {"server_url": hypha.url, "token": hypha.token("ada"), "logger": None}
    far = replace(hypha, port=line.port)
    async with kept_up(far, folder, {"T": hypha.token(OWNER)}, parts=parts) as (kept, _):
        await until("the gateway to be connected", lambda: kept.is_connected)
        async with hypha_rpc.connect_to_server(config) as caller:
            yield Served(parts, kept, await caller.get_service(kept.service_id))


async def test_answers_come_although_the_line_has_fallen_silent(hypha: HyphaServer, tmp_path: Path) -> None:
    async with bad_line(hypha.port) as line, behind(line, hypha, tmp_path) as served:
        service, kept = served.service, served.kept
        streamed = await service.run_python("1", stream=True)
        assert (await anext(streamed))["progress"] == "accepted"
        asked = [asyncio.ensure_future(rest_of(streamed))]
        asked += [asyncio.ensure_future(service.run_python("1")) for _ in range(2)]
        arrived = [await served.parts.work.arrived.get() for _ in asked]
        # Behind it nothing is on its way any more, that of the stream's next part neither.
        assert (await service.hello())["ok"]
        line.fall_silent()
        await until("the silence to be seen", lambda: not kept.is_connected)
        await until("another line", lambda: kept.is_connected)
        for one in arrived:
            one.end.set_result(LARGE)
        async with asyncio.timeout(ANSWER_S):
            answers = await asyncio.gather(*asked)
    assert [answer["value"].tobytes() == LARGE.tobytes() for answer in answers] == [True] * 3


async def test_a_large_answer_takes_its_time_on_a_slow_line(hypha: HyphaServer, tmp_path: Path) -> None:
    async with (
        bad_line(hypha.port, bytes_per_s=SLOW_BYTES_PER_S) as line,
        behind(line, hypha, tmp_path) as served,
    ):
        served.parts.work.run = lambda script: LARGE
        async with asyncio.timeout(ANSWER_S):
            answer = await served.service.run_python("1")
    assert answer["value"].tobytes() == LARGE.tobytes()


async def rest_of(stream: Any) -> Any:
    """Return the last part of a stream, the answer."""
    return [part async for part in stream][-1]
