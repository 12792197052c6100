"""The bootstrap without Ray: document, ports, folder, arguments, processes, and the parent."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from heliostat.node import bootstrap
from heliostat.node.bootstrap import Failed

DOCUMENT: dict[str, Any] = {
    "cluster_uid": "u1",
    "gcs_address": "127.0.0.1:6379",
    "instance_id": "lk3f9qz.0",
    "node_type": "small",
    "resources": {"CPU": 2, "GPU": 0, "memory": 10, "object_store_memory": 20, "tpu": 1.5},
}
PLACED = {**DOCUMENT, "temp_dir": "/tmp/hel-1", "ports": {"node-manager": 20001}}


def until(holds: Callable[[], object]) -> None:
    until_s = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_the_document_comes_from_a_file_or_the_environment_or_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps(DOCUMENT)
    (tmp_path / "start.json").write_text(text)
    monkeypatch.setenv("HELIOSTAT_START", base64.b64encode(text.encode()).decode())
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    for argv in ([str(tmp_path / "start.json")], [], ["-"]):
        assert bootstrap.read_document(argv) == DOCUMENT


def test_a_document_of_the_previous_version_is_taken() -> None:
    previous = Path(__file__).parent / "previous" / "start-1.json"
    found = bootstrap.read_document([str(previous)])
    assert (found["instance_id"], found["port_range"]) == ("licynuaf.0", [20000, 32000])
    assert bootstrap.worker_environment(found)["RAY_CLOUD_INSTANCE_ID"] == "licynuaf.0"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "can't be read"),
        ("[]", "lacks cluster_uid, gcs_address, instance_id, node_type, resources"),
        (json.dumps(DOCUMENT).replace("node_type", "typo"), "lacks node_type"),
    ],
)
def test_a_bad_document_is_refused_with_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "start.json").write_text(text)
    with pytest.raises(Failed, match=said) as caught:
        bootstrap.read_document([str(tmp_path / "start.json")])
    assert caught.value.code == bootstrap.BAD_DOCUMENT


def test_no_document_at_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HELIOSTAT_START", raising=False)
    with pytest.raises(Failed, match="can't be read"):
        bootstrap.read_document([])


def test_temp_dirs_are_private_short_and_differ() -> None:
    first, second = bootstrap.make_temp_dir("/tmp"), bootstrap.make_temp_dir("/tmp")
    try:
        assert first != second
        assert os.stat(first).st_mode & 0o777 == 0o700
        assert len(first) + bootstrap.RAY_SOCKET_CHARS <= bootstrap.SOCKET_BYTES_MAX
    finally:
        os.rmdir(first)
        os.rmdir(second)


@pytest.mark.parametrize(
    ("root", "said"),
    [("/" + "a" * 25, "too long for Ray's sockets: at most 25 bytes"), ("/no/such", "No such")],
)
def test_a_temp_root_that_can_not_be_used_is_said(root: str, said: str) -> None:
    with pytest.raises(Failed, match=said) as caught:
        bootstrap.make_temp_dir(root)
    assert caught.value.code == bootstrap.NO_TEMP_DIR


def free_base() -> int:
    """Return the first of a block's ports, all free now."""
    for base in range(20000, 32000, 2 * bootstrap.BLOCK):
        try:
            sentinel, _ = bootstrap.take_ports(base, base + bootstrap.BLOCK)
        except Failed:
            continue
        sentinel.close()
        return base
    raise AssertionError("no free ports")


def test_a_block_of_ports_is_locked_as_long_as_its_sentinel() -> None:
    base = free_base()
    sentinel, ports = bootstrap.take_ports(base, base + bootstrap.BLOCK)
    with sentinel:
        assert sentinel.getsockname()[1] == base
        assert sorted(ports.values()) == list(range(base + 1, base + 1 + len(bootstrap.PORTS)))
        with pytest.raises(Failed, match="no block of 8 free ports between") as caught:
            bootstrap.take_ports(base, base + bootstrap.BLOCK)
        assert caught.value.code == bootstrap.NO_PORTS
    again, _ = bootstrap.take_ports(base, base + bootstrap.BLOCK)
    again.close()


def test_a_block_with_one_port_in_use_is_passed_over() -> None:
    base = free_base()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", base + 3))
        with pytest.raises(Failed):
            bootstrap.take_ports(base, base + bootstrap.BLOCK)


def test_ray_gets_resources_ports_and_folder() -> None:
    assert bootstrap.ray_arguments(PLACED) == [
        *("start", "--address=127.0.0.1:6379", "--block", "--temp-dir=/tmp/hel-1", "--num-cpus=2"),
        *("--num-gpus=0", "--node-manager-port=20001", "--min-worker-port=0", "--max-worker-port=0"),
        *("--memory=10", "--object-store-memory=20", '--resources={"tpu": 1.5}'),
    ]


@pytest.mark.parametrize(
    ("key", "value", "argument"),
    [
        ("labels", {"b": "2", "a": "1"}, "--labels=a=1,b=2"),
        ("node_ip", "127.0.0.1", "--node-ip-address=127.0.0.1"),
        ("log_monitor", False, "--include-log-monitor=false"),
        ("worker_ports", [30000, 30100], "--max-worker-port=30100"),
        ("ray_args", ["--verbose"], "--verbose"),
    ],
)
def test_each_optional_key_becomes_its_argument(key: str, value: object, argument: str) -> None:
    assert argument not in bootstrap.ray_arguments(PLACED)
    assert argument in bootstrap.ray_arguments({**PLACED, key: value})


def test_the_environment_ties_the_node_to_its_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_OVERRIDE_RESOURCES", "HELIOSTAT_START"):
        monkeypatch.setenv(name, "of another")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    environment = bootstrap.worker_environment({**DOCUMENT, "drain_grace_s": 12.5})
    assert environment["RAY_CLOUD_INSTANCE_ID"] == environment["HELIOSTAT_INSTANCE_ID"] == "lk3f9qz.0"
    assert environment["HELIOSTAT_CLUSTER_UID"] == "u1"
    assert environment["RAY_NODE_TYPE_NAME"] == "small"
    assert environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] == "12"
    assert environment["RAY_AUTH_MODE"] == "token"
    assert "of another" not in environment.values()


@pytest.mark.parametrize(("port", "limit_s"), [("free", 0.0), ("none", 60.0)])
def test_an_address_where_nobody_listens_is_given_up(port: str, limit_s: float) -> None:
    address = f"127.0.0.1:{free_base() if port == 'free' else port}"
    with pytest.raises(Failed, match=f"no head answers at {address}: ") as caught:
        bootstrap.reach(address, limit_s)
    assert caught.value.code == bootstrap.UNREACHABLE


@pytest.fixture
def shell() -> Iterator[subprocess.Popen[bytes]]:
    """A shell with a child."""
    started = subprocess.Popen(["sh", "-c", "sleep 60 & wait"], start_new_session=True)
    until(
        lambda: (
            [bootstrap.process(one) for one in bootstrap.descendants(started.pid)] == [(started.pid, "sleep")]
        )
    )
    yield started
    os.killpg(started.pid, signal.SIGKILL)
    started.wait(5)


def test_descendants_come_parents_first_and_without_the_dead(shell: subprocess.Popen[bytes]) -> None:
    (child,) = bootstrap.descendants(shell.pid)
    ours = bootstrap.descendants(os.getpid())
    assert ours.index(shell.pid) < ours.index(child)
    os.kill(shell.pid, signal.SIGSTOP)
    os.kill(child, signal.SIGKILL)
    # It is a zombie then, since its parent is stopped and does not collect it.
    until(lambda: bootstrap.process(child) is None)
    assert bootstrap.descendants(shell.pid) == []


# The parent, with a stand-in for the child that starts a process in a session of its own.

STAND_IN = """
import json, os, sys, time
news = int(sys.argv[2])
document = json.loads(sys.stdin.readline())
def tell(**message):
    os.write(news, json.dumps(message).encode() + b"\\n")
if os.fork() == 0:
    os.setsid()
    time.sleep(60)
    os._exit(0)
tell(state="starting", detail="it starts")
exec(document["act"])
"""

PARENT = """
import sys
from heliostat.node import bootstrap
bootstrap.os.path.abspath = lambda _: sys.argv[2]
sys.exit(bootstrap.Parent(bootstrap.read_document([sys.argv[1]])).run())
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Return what starts a real parent whose child runs `act` instead of Ray."""
    (tmp_path / "child.py").write_text(STAND_IN)

    def started(act: str, **more: object) -> subprocess.Popen[str]:
        document = {**DOCUMENT, "act": act, "status_file": str(tmp_path / "status.json"), **more}
        (tmp_path / "start.json").write_text(json.dumps(document))
        argv = [sys.executable, "-c", PARENT, str(tmp_path / "start.json"), str(tmp_path / "child.py")]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    return started


def status(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "status.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


@pytest.mark.parametrize(
    ("act", "code", "detail"),
    [
        ("tell(exit_code=11, detail='it is taken'); time.sleep(60)", 11, "it is taken"),
        ("sys.exit(3)", 14, "ray start ended (exit code 3)"),
        ("os.kill(os.getpid(), 9)", 14, "ray start ended (signal 9)"),
        ("tell(state='running', detail='up', ray_pid=1); time.sleep(60)", 18, "the raylet is gone"),
    ],
)
def test_every_end_has_its_code_and_leaves_nothing(
    start: Start, tmp_path: Path, act: str, code: int, detail: str
) -> None:
    parent = start(act)
    # The output's end is seen only when no process is left that holds it.
    output, _ = parent.communicate(timeout=20)
    assert parent.returncode == code
    assert f"bootstrap: ended with {code}: {detail}" in output
    last = status(tmp_path)
    assert (last["state"], last["exit_code"]) == ("ended", code)
    assert not os.path.exists(last["temp_dir"])


def test_term_before_ray_runs_ends_at_once(start: Start, tmp_path: Path) -> None:
    parent = start("import signal; signal.signal(signal.SIGTERM, lambda *_: None); time.sleep(60)")
    until(lambda: status(tmp_path).get("state") == "starting")
    parent.terminate()
    output, _ = parent.communicate(timeout=5)
    assert parent.returncode == 0
    assert "SIGTERM: stopping, nothing runs here yet" in output


def test_a_signal_of_the_lease_reaches_the_child_as_a_line(start: Start, tmp_path: Path) -> None:
    parent = start("tell(exit_code=0, detail='heard: ' + sys.stdin.readline().strip()); time.sleep(60)")
    until(lambda: status(tmp_path).get("state") == "starting")
    parent.send_signal(signal.SIGUSR1)
    output, _ = parent.communicate(timeout=5)
    assert parent.returncode == 0
    assert "heard: leave soon" in output


def test_term_reaches_a_child_with_ray_as_a_line_and_not_as_a_signal(start: Start, tmp_path: Path) -> None:
    parent = start(
        "tell(state='running', detail='up', ray_pid=1)\n"
        "tell(state='running', detail='heard: ' + sys.stdin.readline().strip())\n"
        "time.sleep(60)"
    )
    until(lambda: status(tmp_path).get("state") == "running")
    parent.terminate()
    output, _ = parent.communicate(timeout=15)
    assert parent.returncode == 0
    assert "heard: stop" in output


def test_a_status_file_that_can_not_be_written_ends_nothing(start: Start) -> None:
    parent = start("tell(exit_code=0, detail='fine'); time.sleep(60)", status_file="/no/such/folder/status")
    parent.communicate(timeout=10)
    assert parent.returncode == 0


# The child's calls to the head, and the guard of its threads.


class OldGcs:
    """A head's client as Ray had it before 2.57: no timeout for a drain."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act
        self.calls: list[tuple[object, ...]] = []

    def drain_node(self, *arguments: object) -> object:
        self.calls.append(arguments)
        return self.act()


class NewGcs(OldGcs):
    def drain_node(self, *arguments: object, timeout: float) -> object:
        return super().drain_node(*arguments, timeout)


def child_with(gcs: object) -> bootstrap.Child:
    """Return a child that has come to its head, and whose line nobody reads."""
    news = os.open(os.devnull, os.O_WRONLY)
    line, sender = os.pipe()
    os.write(sender, json.dumps(DOCUMENT).encode() + b"\n")
    os.close(sender)
    kept = os.dup(0)
    try:
        os.dup2(line, 0)
        child = bootstrap.Child(news)
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(line)
    child.gcs = gcs
    return child


@pytest.mark.parametrize(("client", "last"), [(OldGcs, ("n", 1)), (NewGcs, ("n", 1, bootstrap.CALL_S))])
def test_a_call_has_a_deadline_with_every_ray(client: type[OldGcs], last: tuple[object, ...]) -> None:
    gcs = client(lambda: (True, ""))
    assert child_with(gcs).ask("drain_node", "n", 1) == (True, "")
    assert gcs.calls == [last]


def test_an_error_of_an_old_rays_call_is_the_heads_silence() -> None:
    def lost() -> object:
        raise RuntimeError("connection lost")

    with pytest.raises(Failed, match="the head does not answer: connection lost"):
        child_with(OldGcs(lost)).ask("drain_node", "n", 1)


def test_a_silent_head_holds_up_nobody_and_one_thread_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "CALL_S", 0.05)
    answer = threading.Event()
    gcs = OldGcs(lambda: answer.wait(10))
    child = child_with(gcs)
    for _ in range(3):
        with pytest.raises(Failed, match=r"no answer within 0\.05 s"):
            child.ask("drain_node", "n", 1)
    assert len(gcs.calls) == 1
    answer.set()
    until(lambda: not child.one_call.locked())
    assert child.ask("drain_node", "n", 1) is True


def test_a_watch_outlives_what_nobody_expects_and_says_it_once(capsys: pytest.CaptureFixture[str]) -> None:
    child = child_with(OldGcs(lambda: 0 / 0))
    for _ in range(3):
        assert child.guarded(lambda: {}["nothing"]) is None
    assert child.guarded(lambda: "fine") == "fine"
    printed = capsys.readouterr().out
    assert printed.count("bootstrap: an error that was not expected") == 1
    assert "KeyError: 'nothing'" in printed


def test_a_head_that_was_away_gives_its_controller_time_to_be_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    child = child_with(NewGcs(lambda: None))
    child.document, child.heartbeat, child.heard_s = {"orphan_timeout_s": 10}, b"7", 100.0
    drained: list[tuple[object, ...]] = []
    monkeypatch.setattr(child, "drain", lambda *told: drained.append(told))

    def looks(at_s: float, *, answers: bool) -> int:
        def get(key: bytes, namespace: bytes) -> str:
            if not answers:
                raise Failed(bootstrap.UNREACHABLE, "the head does not answer")
            return "7"

        monkeypatch.setattr(bootstrap.time, "monotonic", lambda: at_s)
        monkeypatch.setattr(child, "get", get)
        child.next_look_s = 0.0
        child.watch_controller()
        return len(drained)

    assert looks(105.0, answers=True) == 0
    assert looks(150.0, answers=False) == 0
    # It came back, and so does its controller.
    assert looks(151.0, answers=True) == 0
    assert looks(161.0, answers=True) == 1
