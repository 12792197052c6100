"""What is known to go wrong with Hypha, with a real server: that it does, and that it does us no harm."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from heliostat.gateway.hypha.connection import Place, connect
from heliostat.gateway.hypha.problems import NameTaken, SignInNeeded
from tests.hypha_server import HyphaServer
from tests.integration.gateway.conftest import OWNER, WORKSPACE, Site, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

CALLERS = 200


async def test_trap_1_a_token_made_from_another_inherits_who_it_is_but_not_what_it_may(site: Site) -> None:
    """The rules see each call's scope and parent, so an e-mail alone lets nobody in."""
    owner = await site.caller(OWNER, client_id="owners-notebook")
    lent = await owner.generate_token({"workspace": WORKSPACE, "permission": "read", "expires_in": 600})
    assert (await site.http("", "hello", token=lent))[0] == 200
    user = site.parts.rules.contexts[-1]["user"]
    assert (user["email"], user["parent"]) == ("owner@example.org", OWNER)
    assert user["scope"]["workspaces"][WORKSPACE] == "r"
    assert user["id"] != OWNER


async def test_trap_2_a_connection_outlives_its_token_and_each_call_says_so(site: Site) -> None:
    """The server lets an expired token's connection go on; the rules see the expiry with each call."""
    now_s = time.time()
    service = await site.service("ada", token=site.server.token("ada", exp=int(now_s) + 2))
    await until("the token to expire", lambda: time.time() > now_s + 3)
    assert (await service.hello())["value"]["you"]["name"] == "ada@example.org"
    assert site.parts.rules.contexts[-1]["user"]["expires_at"] < time.time()


async def test_trap_3_a_function_object_in_two_services_has_the_rights_of_the_last(site: Site) -> None:
    """Each registration gets functions of its own, so a second service changes nothing for the first."""

    async def shared(context: Any = None) -> str:
        return "reached"

    owner = await site.caller(OWNER, client_id="two-services")
    guarded = {"id": "a", "config": {"visibility": "protected"}, "f": shared}
    await owner.register_service(guarded)
    await owner.register_service({"id": "b", "config": {"visibility": "public"}, "f": shared})
    status, _ = await site.http("eve", "hello")
    assert status == 200
    stranger = await site.caller("eve")
    assert await (await stranger.get_service(f"{WORKSPACE}/two-services:b")).f() == "reached"
    with pytest.raises(Exception, match="ermission"):
        await stranger.get_service(f"{WORKSPACE}/two-services:a")

    definition = site.parts.services.definition("private")
    definition["config"]["visibility"] = "protected"
    await site.connection.register(definition)
    assert (await (await site.service("ada")).hello())["ok"]
    with pytest.raises(Exception, match="ermission"):
        await stranger.get_service(f"{WORKSPACE}/heliostat-demo:private")


async def test_trap_4_many_callers_do_not_hold_up_each_other(site: Site) -> None:
    """With 200 calls in flight, `hello` still answers at once; a blocking function would stop everybody."""
    service, other = await site.service("ada"), await site.service(OWNER)
    asked = [asyncio.ensure_future(service.run_python(f"result = {at}")) for at in range(CALLERS)]
    arrived = [await site.parts.work.arrived.get() for _ in range(CALLERS)]
    begun_s = time.monotonic()
    assert (await other.hello())["ok"]
    assert time.monotonic() - begun_s < 2.0
    for one in arrived:
        one.end.set_result(one.what.text)
    values = sorted((answer["value"] for answer in await asyncio.gather(*asked)), key=len)
    assert len(set(values)) == CALLERS


async def test_trap_6_a_name_that_is_taken_is_left_to_who_has_it(site: Site) -> None:
    """Connecting under a live client's name would throw that one out, although the server refuses it."""
    with pytest.raises(NameTaken, match="another gateway is connected as heliostat-demo"):
        await connect(Place(site.server.url, "heliostat-demo"), site.server.token(OWNER))
    assert (await (await site.service("ada")).hello())["ok"]
    again = site.parts.services.definition("heliostat")
    assert await site.connection.register(again) == site.service_id


async def test_trap_7_http_carries_neither_streams_nor_bytes_but_we_do(site: Site) -> None:
    """What Hypha can't send over JSON has a form of its own, and a stream is looked at with an offset."""
    site.parts.work.run = lambda script: {"raw": b"\x00\xff", "image": np.eye(2)}
    broken, _ = await site.http("ada", "run_python", {"script": "…"})
    assert broken == 500
    status, answer = await site.http("ada", "run_python", {"script": "…", "encoding": "json"})
    assert status == 200
    assert answer["value"]["raw"] == {"$bytes": "AP8="}

    site.parts.work.run = None
    _, begun = await site.http("ada", "run_python", {"script": "…", "wait": False})
    arrived = await site.parts.work.arrived.get()
    arrived.say("running")
    _, look = await site.http("ada", "progress", {"call_id": begun["call_id"]})
    assert look["value"]["lines"] == ["running"]
    arrived.end.set_result(1)
    offset = look["value"]["offset"]
    _, look = await site.http("ada", "progress", {"call_id": begun["call_id"], "offset": offset})
    assert look["value"]["answer"]["value"] == 1


async def test_trap_8_no_error_shows_a_path_or_a_traceback(site: Site) -> None:
    """Neither our defects nor what the client itself chokes on tell a stranger about the owner's host."""

    def broken(script: Any) -> Any:
        raise RuntimeError("/home/ada")

    site.parts.work.run = broken
    stranger = await site.caller("eve")
    ada, eve = await site.service("ada"), await stranger.get_service(site.service_id)
    answers = [await ada.run_python("1"), await ada.run_python(nonsense=1), await eve.run_python("1")]
    assert [one["error"]["code"] for one in answers] == ["internal", "invalid", "not_allowed"]
    said = [str(answers)]
    for argument in (
        {"_rtype": "ndarray", "_rvalue": b"123", "_rdtype": "f8", "_rshape": [9]},
        {"_rtype": "pydantic_model", "_rschema": {}, "_rvalue": {}},
    ):
        with pytest.raises(Exception, match="can't read this call") as refused:
            await eve.hello(argument)
        said.append(str(refused.value))
    target = {"_rtarget": f"{WORKSPACE}/heliostat-demo", "_rmethod": "services.heliostat.none"}
    none_such = stranger.rpc._generate_remote_method(
        {**target, "_rserver": site.server.url, "_rpromise": True}
    )
    with pytest.raises(Exception, match="no such function") as refused:
        await none_such()
    said.append(str(refused.value))
    assert [text for text in said if "Traceback" in text or "/home" in text or ".py" in text] == []


async def test_trap_9_the_clients_timeout_does_not_end_a_long_call_and_dates_are_refused(site: Site) -> None:
    """A caller's `method_timeout` counts idle time only; what can't be sent is a plain answer, not a hang."""
    service = await site.service("ada", method_timeout=1)
    asked = asyncio.ensure_future(service.run_python("1"))
    arrived = await site.parts.work.arrived.get()
    begun_s = time.monotonic()
    await until("more than the caller's time-out to pass", lambda: time.monotonic() - begun_s > 2.5)
    arrived.end.set_result(dt.datetime(2026, 1, 2, tzinfo=dt.UTC))
    answer = await asked
    assert answer["error"]["code"] == "failed"
    assert "values of type datetime can't be sent" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (lambda server: server.token(OWNER, exp=1000), "it has expired"),
        (lambda server: replace(server, secret="another").token(OWNER), "its signature is wrong"),
        (lambda server: "nonsense", "it is no token"),
    ],
    ids=["expired", "forged", "nonsense"],
)
async def test_a_token_that_does_not_hold_is_a_clear_sentence(
    site: Site, token: Callable[[HyphaServer], str], words: str
) -> None:
    with pytest.raises(SignInNeeded, match=words):
        await connect(Place(site.server.url, "another"), token(site.server))


async def test_a_revoked_token_and_one_for_another_workspace_are_clear_sentences(site: Site) -> None:
    token = await site.connection.new_token(600)
    await site.connection.revoke(token)
    with pytest.raises(SignInNeeded, match="it was revoked"):
        await connect(Place(site.server.url, "another"), token)
    with pytest.raises(SignInNeeded, match="it is for another workspace"):
        await connect(Place(site.server.url, "another", "ws-user-ada"), site.server.token(OWNER))
