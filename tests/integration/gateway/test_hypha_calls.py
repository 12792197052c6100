"""Calls through a real Hypha server: large ones, streams, callers that vanish, and the way over HTTP."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest

from heliostat.gateway.hypha.connection import Place, connect
from tests.gateway_parts import RulesByName, WorkOnCall, gateway
from tests.hypha_server import HyphaServer
from tests.integration.gateway.conftest import OWNER, Site, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

LARGE_BYTES = 10 * 2**20


async def test_ten_megabytes_go_both_ways(site: Site) -> None:
    site.parts.work.run = lambda script: script.inputs["image"][::-1]
    image = np.arange(LARGE_BYTES // 4, dtype="<f4").reshape(-1, 1024)
    answer = await (await site.service("ada")).run_python("…", {"image": image})
    np.testing.assert_array_equal(answer["value"], image[::-1])


async def test_progress_and_logs_are_streamed(site: Site) -> None:
    site.parts.work.logs = ["epoch 1\n", "epoch 2\n"]
    service = await site.service("ada")
    stream = await service.run_python("1", stream=True)
    seen = [await anext(stream)]
    arrived = await site.parts.work.arrived.get()
    arrived.say("waiting for a node: Slurm, Priority")
    seen.append(await anext(stream))
    arrived.end.set_result(b"done")
    seen += [part async for part in stream]
    assert [part.get("progress", part.get("value")) for part in seen][1:] == [
        "waiting for a node: Slurm, Priority",
        b"done",
    ]

    job_id = (await service.submit("python train.py"))["value"]
    logs = await service.job_logs(job_id, stream=True)
    assert [text async for text in logs] == ["epoch 1\n", "epoch 2\n"]
    other = await site.service(OWNER)
    assert (await other.job_status(job_id))["error"]["code"] == "unknown_job"


async def test_a_caller_of_another_workspace_that_vanishes_frees_its_slot(site: Site) -> None:
    """Hypha tells only of clients of the gateway's own workspace, so the others are looked up."""
    ada = await site.caller("ada")
    asked = asyncio.ensure_future((await ada.get_service(site.service_id)).run_python("1"))
    await site.parts.work.arrived.get()
    await site.parts.underway.sweep(site.connection.presence)
    assert len(site.parts.rules.running) == 1
    await ada.disconnect()
    await asyncio.wait([asked])
    assert asked.exception() is not None

    async def is_free() -> bool:
        await site.parts.underway.sweep(site.connection.presence)
        await asyncio.sleep(0)
        return not site.parts.rules.running

    await until("the slot to be free", is_free)
    assert site.parts.work.cancelled == 1


async def test_a_stream_that_is_left_early_frees_its_slot(site: Site) -> None:
    stream = await (await site.service("ada")).run_python("1", stream=True)
    await anext(stream)
    await site.parts.work.arrived.get()
    await stream.aclose()
    await until("the slot to be free", lambda: not site.parts.rules.running)


async def test_who_asks_is_shown_functions_with_their_types(site: Site) -> None:
    service = await site.service("ada")
    schema = service.run_python.__schema__
    assert schema["parameters"]["properties"]["script"]["type"] == "string"
    status, answer = await site.http("ada", "hello")
    assert (status, answer["value"]["you"]["workspace"]) == (200, "ws-user-ada")


async def test_over_http_arguments_may_come_as_a_list_and_a_stranger_gets_a_short_no(site: Site) -> None:
    site.parts.work.run = lambda script: script.text
    assert (await site.http("ada", "run_python", ["result = 1"]))[1]["value"] == "result = 1"
    status, answer = await site.http("eve", "run_python", ["result = 1"])
    assert (status, answer["error"]["code"]) == (200, "not_allowed")


async def test_a_stranger_cannot_fill_the_gateways_memory(hypha: HyphaServer, tmp_path: Path) -> None:
    """Hypha's client takes the parts of long messages from anybody, before any rule is asked."""
    parts = gateway(tmp_path, RulesByName({}), WorkOnCall())
    place = Place(hypha.url, "heliostat-small", message_max_bytes=2**20)
    async with AsyncExitStack() as stack:
        live = await connect(place, hypha.token(OWNER))
        stack.push_async_callback(live.aclose)
        service_id = await live.register(parts.services.definition("heliostat"))
        eve = await Site(hypha, parts, live, service_id, stack).service("eve")
        with pytest.raises(Exception, match="larger than 1048576 bytes"):
            await eve.run_python("1", {"a": b"x" * 2**21})
        assert (await eve.run_python("1", {"a": b"x" * 2**19}))["error"]["code"] == "not_allowed"
