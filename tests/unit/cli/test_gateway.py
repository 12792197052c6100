"""`heliostat gateway` and its subcommands, against a desk with a real socket."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.api.client import NotRunning
from heliostat.cli import gateway_process
from heliostat.cli.gateway_view import log_line
from heliostat.cli.system import abstract_lock
from heliostat.config.places import gateway_socket, state_places
from heliostat.config.record import ClusterRecord
from heliostat.gateway.rules.audit import AuditLog, Follower
from heliostat.gateway.rules.calls import Call
from heliostat.gateway.rules.gate import Gate
from heliostat.gateway.work.port import Needs
from heliostat.ports.errors import HeliostatError
from tests.unit.cli.conftest import Invoke
from tests.unit.config.files import GOOD
from tests.unit.gateway.people import ADA, NOW_S
from tests.unit.gateway.served import FakeServer, desk

FILE = GOOD.replace(
    "  backends: {local: {}}\n",
    "  backends: {local: {}}\n  gateway: {server_url: 'https://h.example.org', workspace: lab}\n",
)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="hg-", dir="/tmp"))
    monkeypatch.setenv("HELIOSTAT_RUNTIME_DIR", str(made))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def folder(state: Path) -> Path:
    """The gateway's own folder of a cluster that need not run."""
    made = state / "demo" / "gateway"
    made.mkdir(parents=True, mode=0o700)
    return made


@pytest.fixture
def at_desk(runtime: Path, state: Path, folder: Path) -> Iterator[tuple[Gate, FakeServer]]:
    with desk(folder, gateway_socket(runtime, state / "demo")) as found:
        yield found


def log(folder: Path) -> None:
    found = AuditLog(folder / "audit.jsonl")
    call = {"call_id": "c1", "who": ADA, "account": ADA, "function": "run_python", "at_s": NOW_S}
    found.add_at_last({**call, "event": "begun", "cpus": 1.0, "script_sha256": "a" * 64})
    found.add_at_last(
        {**call, "event": "ended", "outcome": "failed", "message": "no\nsuch", "took_s": 3.0, "gpu_s": 2.0}
    )
    found.add_at_last(
        {"at_s": NOW_S, "event": "refused", "who": "eve", "function": "hello", "outcome": "x", "times": 9}
    )
    found.close()


def test_status_says_who_does_what(invoke: Invoke, at_desk: tuple[Gate, FakeServer]) -> None:
    gate, server = at_desk
    call = Call(
        "c1", ADA, ADA, frozenset(), "call", "count", Needs(gpus=1.0), NOW_S - 90.0, note="waiting: a node"
    )
    gate.register.begin(call)
    gate.revocations.add("eve@example.org", now_s=NOW_S)
    output = invoke("gateway", "status", "demo").output
    assert "demo: connected to https://hypha.example.org, workspace lab" in output
    assert "sign-in   holds for 2 h" in output
    assert "metrics   http://127.0.0.1:9100/metrics" in output
    assert "c1" in output
    assert "call count" in output
    assert "1 CPU, 1 GPU" in output
    assert "waiting: a node" in output
    assert "eve@example.org  since" in output
    server.connected = False
    assert "demo: not connected to" in invoke("gateway", "status", "demo").output
    facts = json.loads(invoke("gateway", "status", "demo", "--json").output)
    assert facts["calls"][0]["is_waiting"] is True


def test_status_says_why_no_call_can_run(invoke: Invoke, at_desk: tuple[Gate, FakeServer]) -> None:
    _, server = at_desk
    healthy = invoke("gateway", "status", "demo").output
    for words in ("problem ", "cluster ", "functions "):
        assert words not in healthy
    server.troubles = {"problem": "it\nhas expired", "driver": False, "functions_problem": "no module f"}
    output = invoke("gateway", "status", "demo").output
    assert "problem   it has expired\n" in output
    assert "cluster   it does not answer; no call can run" in output
    assert "functions no module f\n" in output
    server.troubles["cluster_problem"] = "demo does not run here"
    assert "cluster   demo does not run here; no call can run" in invoke("gateway", "status", "demo").output


def test_status_without_a_gateway(invoke: Invoke, runtime: Path, state: Path) -> None:
    result = invoke("gateway", "status", "demo")
    assert result.exit_code == 1
    assert "no gateway of demo answers on this host" in result.stderr


def test_revoke(invoke: Invoke, at_desk: tuple[Gate, FakeServer]) -> None:
    gate, _ = at_desk
    assert invoke("gateway", "revoke", ADA, "-c", "demo").output == f"{ADA} is shut out\n"
    assert [one.who for one in gate.revocations.all()] == [ADA]
    assert invoke("gateway", "revoke", ADA, "--undo", "-c", "demo").output == f"{ADA} is no longer shut out\n"
    again = invoke("gateway", "revoke", ADA, "--undo", "-c", "demo")
    assert (again.exit_code, again.output) == (1, f"{ADA} was not shut out\n")


def test_revoke_a_token(invoke: Invoke, at_desk: tuple[Gate, FakeServer], tmp_path: Path) -> None:
    _, server = at_desk
    lost = tmp_path / "lost"
    lost.write_text("h.eyJzdWIiOiJjaGlsZC03In0.s\n")
    answer = json.loads(invoke("gateway", "revoke", "--token-file", str(lost), "-c", "demo", "--json").output)
    assert answer == {"who": "child-7", "ended": 0, "at_server": ""}
    assert "sign in again" in invoke("gateway", "revoke", "--own-token", "-c", "demo").output
    assert server.revoked == ["h.eyJzdWIiOiJjaGlsZC03In0.s", None]


@pytest.mark.parametrize("arguments", [[], ["a", "--own-token"], ["--own-token", "--undo"]])
def test_revoke_wants_one_thing(invoke: Invoke, arguments: list[str]) -> None:
    assert invoke("gateway", "revoke", *arguments).exit_code == 2


def test_logs_are_read_without_a_gateway(invoke: Invoke, folder: Path) -> None:
    log(folder)
    lines = invoke("gateway", "logs", "demo").output.splitlines()
    assert len(lines) == 3
    assert lines[0].endswith(f"{ADA}  begun run_python  script aaaaaaaaaaaa  c1")
    assert lines[1].endswith(f"{ADA}  ended run_python  failed  no such  3 s, 2 GPU s  c1")
    assert lines[2].endswith("eve  refused hello (9 times)  x")
    (newest,) = invoke("gateway", "logs", "demo", "--limit", "1", "--json").output.splitlines()
    assert json.loads(newest)["times"] == 9
    assert len(invoke("gateway", "logs", "demo", "--who", "ADA@example.org").output.splitlines()) == 2


def test_logs_of_nothing(invoke: Invoke, folder: Path) -> None:
    result = invoke("gateway", "logs", "demo", "--who", "eve")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing of eve is in the log" in result.stderr


def test_a_follower_goes_on_over_the_files(folder: Path) -> None:
    follower = Follower(folder / "audit.jsonl")
    log = AuditLog(folder / "audit.jsonl", rotate_bytes=80)
    seen = list[float]()
    for number in range(6):
        log.add_at_last({"at_s": float(number), "event": "asked", "text": "x" * 20})
        assert log.settle(10)
        seen += [line["at_s"] for line in follower.new()]
    log.close()
    assert seen == [0, 1, 2, 3, 4, 5]


def test_a_line_shows_no_more_than_text() -> None:
    line = {
        "at_s": NOW_S,
        "event": "ended",
        "who": "a\x1b[31m",
        "function": "f",
        "outcome": "ok",
        "took_s": 1.5,
    }
    assert "\x1b" not in log_line(line)


def started(monkeypatch: pytest.MonkeyPatch) -> list[gateway_process.GatewayStart]:
    found: list[gateway_process.GatewayStart] = []
    monkeypatch.setattr(gateway_process, "run_gateway", found.append)
    return found


@pytest.mark.parametrize("by_name", [True, False])
def test_serving_begins_with_what_the_file_says(
    invoke: Invoke,
    cluster: ClusterRecord,
    runtime: Path,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    by_name: bool,
) -> None:
    calls = started(monkeypatch)
    path = Path(cluster.source)
    path.write_text(FILE)
    result = invoke("gateway", "demo" if by_name else str(path))
    assert (result.exit_code, result.output) == (0, "")
    (start,) = calls
    assert start.settings.workspace == "lab"
    assert start.record == cluster
    assert start.places == state_places(state, "demo")
    assert start.places.gateway.is_dir()
    assert start.socket_path == gateway_socket(runtime, state / "demo")


@pytest.mark.parametrize("error", [NotRunning("down"), HeliostatError("its record can't be read")])
async def test_a_look_at_the_cluster_never_raises(
    monkeypatch: pytest.MonkeyPatch, error: HeliostatError
) -> None:
    def pick(name: str) -> ClusterRecord:
        raise error

    monkeypatch.setattr(gateway_process, "pick", pick)
    assert await gateway_process._status_of("demo")() is None


@pytest.mark.parametrize(("at_start", "ends"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_a_hang_up_ends_it_unless_it_was_started_to_outlive_one(
    at_start: signal.Handlers, ends: bool
) -> None:
    before = signal.signal(signal.SIGHUP, at_start)
    try:
        found = gateway_process._stop_signals()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (signal.SIGHUP in found) is ends
    assert {signal.SIGINT, signal.SIGTERM} <= set(found)


def test_one_gateway_at_a_time(
    invoke: Invoke, cluster: ClusterRecord, runtime: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = started(monkeypatch)
    Path(cluster.source).write_text(FILE)
    with abstract_lock(f"gateway {state / 'demo'}"):
        result = invoke("gateway", "demo")
    assert result.exit_code == 1
    assert "a gateway of demo runs already" in result.stderr
    assert calls == []


def test_a_file_without_a_gateway(invoke: Invoke, cluster: ClusterRecord, runtime: Path) -> None:
    Path(cluster.source).write_text(GOOD)
    result = invoke("gateway", cluster.source)
    assert result.exit_code == 1
    assert "has no provider.gateway" in result.stderr


def test_a_cluster_that_is_not_up(invoke: Invoke, state: Path, runtime: Path, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(FILE)
    result = invoke("gateway", str(path))
    assert result.exit_code == 1
    assert "demo does not run here" in result.stderr
