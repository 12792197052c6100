"""The owner's way to a gateway, over its real socket."""

from __future__ import annotations

import base64
import json
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.gateway.desk_client import DeskClient, GatewayNotRunning, GatewayRefused
from heliostat.gateway.rules.audit import lines_in
from heliostat.gateway.rules.calls import Call
from heliostat.gateway.rules.gate import Gate
from heliostat.gateway.rules.revoked import NoToken, Revocations, id_in
from heliostat.gateway.work.port import Needs
from heliostat.ports.errors import HeliostatError
from tests.unit.gateway.people import ADA, NOW_S, caller
from tests.unit.gateway.served import FakeServer, desk

Desk = tuple[DeskClient, Gate, FakeServer]


def token(**claims: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJIUzI1NiJ9.{body}.signature"


@pytest.fixture
def folder() -> Iterator[Path]:
    # A socket's path must be short.
    made = Path(tempfile.mkdtemp(prefix="hg-", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def served(folder: Path) -> Iterator[Desk]:
    with desk(folder, folder / "g.sock") as (gate, server):
        yield DeskClient(folder / "g.sock", cluster="demo"), gate, server


def test_only_the_owner_can_open_it(served: Desk, folder: Path) -> None:
    assert stat.S_IMODE((folder / "g.sock").stat().st_mode) == 0o600


def test_status(served: Desk) -> None:
    client, gate, _ = served
    needs = Needs(gpus=1.0)
    gate.register.begin(Call("c1", ADA, ADA, frozenset({"u-ada"}), "call", "count", needs, NOW_S))
    facts = client.status()
    assert facts["cluster_name"] == "demo"
    assert facts["connection"]["workspace"] == "lab"
    (call,) = facts["calls"]
    assert (call["who"], call["function"], call["published"], call["needs"]["gpus"]) == (
        ADA,
        "call",
        "count",
        1.0,
    )
    assert "sign_ins" not in call
    assert facts["revoked"] == []
    assert not facts["audit_is_behind"]


def test_somebody_is_shut_out_and_let_back(served: Desk, folder: Path) -> None:
    client, gate, _ = served
    assert client.revoke("Ada@Example.org") == {"who": "Ada@Example.org", "ended": 0}
    assert not gate.may_call(caller(), "count")
    assert client.status()["revoked"] == [{"who": ADA, "at_s": NOW_S}]
    assert stat.S_IMODE((folder / "revoked.json").stat().st_mode) == 0o600
    assert client.let_back(ADA) == {"who": ADA, "was_revoked": True}
    assert gate.may_call(caller(), "count")
    assert client.let_back(ADA) == {"who": ADA, "was_revoked": False}
    assert gate.audit.settle(10)
    assert [one["event"] for one in lines_in(folder / "audit.jsonl")] == ["revoked", "let_back"]


def test_a_callers_token_is_refused_here_and_at_the_server(served: Desk, folder: Path) -> None:
    client, gate, server = served
    lost = token(sub="child-7", parent="u-ada")
    assert client.revoke_token(lost) == {"who": "child-7", "ended": 0, "at_server": ""}
    assert server.revoked == [lost]
    assert not gate.may_call(caller(id="child-7", parent="u-ada", permission="rw"), "count")
    assert gate.may_call(caller(), "count")
    assert all(lost not in one.read_text() for one in folder.iterdir() if one.is_file())


def test_a_server_that_does_not_take_it_is_told_and_it_is_refused_here(served: Desk) -> None:
    client, gate, server = served
    server.error = HeliostatError("the server is away")
    assert client.revoke_token(token(sub="u-ada"))["at_server"] == "the server is away"
    assert not gate.may_call(caller(), "count")
    with pytest.raises(GatewayRefused, match="the server is away"):
        client.revoke_token(None)


def test_the_gateways_own_token(served: Desk) -> None:
    client, _, server = served
    assert client.revoke_token(None) == {"who": None, "ended": 0, "at_server": ""}
    assert server.revoked == [None]


@pytest.mark.parametrize("text", ["hunter2", "a.b.c", "a.e30.c", "..", "a.MQ.c"])
def test_what_is_no_token_is_refused_and_not_repeated(served: Desk, text: str) -> None:
    with pytest.raises(GatewayRefused, match=r"this (is no token|token does not say)") as caught:
        served[0].revoke_token(text)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(NoToken):
        id_in(text)


def test_without_a_gateway(folder: Path) -> None:
    with pytest.raises(GatewayNotRunning, match="no gateway of demo answers on this host"):
        DeskClient(folder / "none.sock", cluster="demo").status()


@pytest.mark.parametrize("text", ["{", "[1]", '[{"who": "a"}]', '{"a": 1}'])
def test_revocations_that_can_not_be_read_let_nobody_in(tmp_path: Path, text: str) -> None:
    path = tmp_path / "revoked.json"
    path.write_text(text)
    with pytest.raises(HeliostatError, match="can't be understood"):
        Revocations(path)
