"""The bootstrap against a real head: it joins, refuses, ends when it should, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from heliostat.model.instance import NodeStatus
from tests.integration.node.conftest import Head, until
from tests.integration.real_head import free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

STRANGER, CLAIMED, VERSIONS, UNREACHABLE, RAY_FAILED, RAYLET_DIED = 10, 11, 12, 15, 14, 18
DRAIN = """
import sys
from ray._raylet import GcsClient
print(GcsClient(address=sys.argv[1]).drain_node(sys.argv[2], 1, "idle", 0))
"""


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        ({"cluster_uid": "other"}, STRANGER, "another cluster"),
        ({"session_name": "session_of_last_week"}, STRANGER, "the head at"),
        ({"ray_version": "1.0.0"}, VERSIONS, "has 1.0.0: they must be equal"),
        ({"python_version": "2.7"}, VERSIONS, "has 2.7: they must be equal"),
    ],
)
def test_it_refuses_before_anything_runs(head: Head, changed: dict[str, Any], code: int, said: str) -> None:
    one = head.start("refused", **changed)
    assert one.ends(within_s=20) == code
    assert said in one.log()
    assert "raylet" not in one.log()
    assert (one.status()["state"], one.status()["exit_code"]) == ("ended", code)
    one.leaves_nothing()


def test_an_unreachable_head_is_said_in_one_line(head: Head) -> None:
    address = f"127.0.0.1:{free_port()}"
    one = head.start("lost", gcs_address=address, reach_timeout_s=1)
    assert one.ends(within_s=10) == UNREACHABLE
    assert f"no head answers at {address}" in one.status()["detail"]
    assert "Traceback" not in one.log()


def test_a_wrong_token_is_refused_and_said(head: Head, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("0123456789abcdef0123456789abcdef")
    wrong.chmod(0o600)
    one = head.start("wrong", environment={**head.environment, "RAY_AUTH_TOKEN_PATH": str(wrong)})
    assert one.ends(within_s=20) == UNREACHABLE
    assert "the head refuses our token" in one.status()["detail"]


def test_of_two_with_one_id_one_joins_and_an_idle_one_leaves_on_term(head: Head) -> None:
    first = head.start("twin")
    first.reaches("running")
    assert head.node("twin") in {NodeStatus.RUNNING, NodeStatus.IDLE}
    with socket.socket() as probe, pytest.raises(OSError):
        probe.bind(("127.0.0.1", first.status()["ports"]["node-manager"] - 1))
    second = head.start("twin")
    assert second.ends(within_s=20) == CLAIMED
    assert "has joined already from" in second.status()["detail"]
    first.process.terminate()
    assert first.ends(within_s=6) == 0
    first.leaves_nothing()
    until("Ray knows", lambda: head.node("twin") is NodeStatus.DEAD, timeout_s=5)


def test_term_during_the_start_is_acted_on_at_once(head: Head) -> None:
    one = head.start("early")
    one.reaches("starting")
    one.process.terminate()
    assert one.ends(within_s=3) == 0
    one.leaves_nothing()


def test_kill_of_the_parent_during_the_start_ends_everything(head: Head) -> None:
    one = head.start("orphan")
    one.reaches("starting")
    one.process.kill()
    one.process.wait(2)
    one.leaves_nothing(within_s=5)


def test_kill_of_the_parent_of_an_idle_worker_ends_everything(head: Head) -> None:
    one = head.start("bereft")
    one.reaches("running")
    one.process.kill()
    one.process.wait(2)
    one.leaves_nothing(within_s=6)


def test_kill_of_the_child_ends_everything(head: Head) -> None:
    one = head.start("childless")
    one.reaches("running")
    os.kill(one.child(), signal.SIGKILL)
    assert one.ends(within_s=4) in {RAY_FAILED, RAYLET_DIED}
    one.leaves_nothing()


def test_term_lets_a_busy_worker_finish_its_task(head: Head) -> None:
    one = head.start("busy", drain_grace_s=20)
    one.reaches("running")
    driver = head.occupy("busy", 3)
    one.process.terminate()
    output, _ = driver.communicate(timeout=20)
    assert b"done" in output.split(), output
    assert one.ends(within_s=10) == 0
    one.leaves_nothing()


def test_a_task_that_outlasts_the_grace_is_ended_and_the_head_is_told(head: Head) -> None:
    one = head.start("endless", drain_grace_s=1)
    one.reaches("running")
    driver = head.occupy("endless", 60)
    one.process.terminate()
    assert one.ends(within_s=6) == 0
    one.leaves_nothing()
    # Soon: by the raylet's own word, not because its heartbeats stopped.
    until("Ray knows", lambda: head.node("endless") is NodeStatus.DEAD, timeout_s=3)
    driver.kill()
    driver.wait(5)


def test_it_ends_soon_after_an_accepted_drain(head: Head) -> None:
    one = head.start("drained")
    one.reaches("running")
    argv = [sys.executable, "-c", DRAIN, head.ready.address, one.status()["node_id"]]
    until(
        "a drain that is accepted",
        lambda: b"True" in subprocess.run(argv, env=head.environment, capture_output=True, check=True).stdout,
    )
    began_s = time.monotonic()
    assert one.ends(within_s=4) == 0
    assert time.monotonic() - began_s < 2.5
    assert "drained because it was idle" in one.status()["detail"]
    one.leaves_nothing()


def test_without_a_controller_it_stays_while_busy_and_then_leaves(head: Head) -> None:
    # The task waits already: it must be there before the worker has been alone for long.
    driver, flag = head.submit("forgotten", 8)
    one = head.start("forgotten", orphan_timeout_s=3)
    until("the task runs", flag.exists)
    until("a refusal", lambda: "no controller was heard for 3 s; " in one.log(), timeout_s=15)
    output, _ = driver.communicate(timeout=20)
    assert b"done" in output.split(), output
    assert one.ends(within_s=20) == 0
    one.leaves_nothing()


def test_a_lease_end_is_announced_to_a_busy_worker(head: Head) -> None:
    one = head.start("leased", lease_warning_s=60)
    one.reaches("running")
    driver = head.occupy("leased", 2)
    one.process.send_signal(signal.SIGUSR1)
    until("the announcement", lambda: one.status()["state"] == "draining", timeout_s=5)
    until("Ray knows", lambda: head.node("leased") is NodeStatus.DRAINING, timeout_s=2)
    output, _ = driver.communicate(timeout=20)
    assert b"done" in output.split(), output
    assert one.ends(within_s=5) == 0
    assert "drained ahead of its end" in one.status()["detail"]


def test_a_lease_that_ends_soon_is_announced_without_a_signal(head: Head) -> None:
    one = head.start("short", lease_end_s=time.time() + 60, lease_warning_s=120)
    assert one.ends(within_s=25) == 0
    assert "the machine's lease ends; draining" in one.log()
