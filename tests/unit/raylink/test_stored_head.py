"""How a head that keeps its state is started: the password is in no argument, and reaches one process."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heliostat.model.gcs_storage import RECONNECT_VARIABLE, GcsStorage
from heliostat.ports.errors import StorageError
from heliostat.raylink import stored_head
from heliostat.raylink.head import HeadOptions, HeadPorts, head_command
from heliostat.raylink.stored_head import own_options, taken_password, with_flag, with_password

PASSWORD = "0pen sesame"
PORTS = HeadPorts(gcs=7001, dashboard=7002, client=7003)


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.touch(0o600)
    path.write_text(PASSWORD)
    return path


def options(storage: GcsStorage | None) -> HeadOptions:
    return HeadOptions("/tmp/x", Path("/t/token"), "front", storage=storage, cluster_uid="u1")


def test_ray_is_told_where_its_state_is_and_not_the_password(password_file: Path) -> None:
    storage = GcsStorage("h", 1, username="ray", password_file=str(password_file))
    command = head_command(options(storage), PORTS, environment={}, python="py")
    program = ("py", "-m", "heliostat.raylink.stored_head", f"--password-file={password_file}", "start")
    assert command.argv[:5] == program
    assert "--redis-username=ray" in command.argv
    assert command.environment["RAY_REDIS_ADDRESS"] == "redis://h:1"
    assert command.environment["RAY_external_storage_namespace"] == "heliostat-u1"
    assert "RAY_REDIS_CA_CERT" not in command.environment
    # Less than `head_timeout_s`: a head whose GCS hangs has to come back within that.
    assert command.environment[RECONNECT_VARIABLE] == "20"
    assert PASSWORD not in str(command)


def test_tls_has_its_authority() -> None:
    storage = GcsStorage("h", 1, tls=True, ca_cert="/ca.pem")
    found = head_command(options(storage), PORTS, environment={}).environment
    assert (found["RAY_REDIS_ADDRESS"], found["RAY_REDIS_CA_CERT"]) == ("rediss://h:1", "/ca.pem")


def test_the_files_own_patience_is_the_heads_too() -> None:
    wanted = replace(options(GcsStorage("h", 1)), environment={RECONNECT_VARIABLE: "45"})
    assert head_command(wanted, PORTS, environment={}).environment[RECONNECT_VARIABLE] == "45"


def test_a_head_without_storage_takes_nobody_elses() -> None:
    inherited = {"RAY_REDIS_ADDRESS": "redis://else:1", "RAY_external_storage_namespace": "else"}
    command = head_command(options(None), PORTS, environment=inherited, python="py")
    assert command.argv[:4] == ("py", "-m", "ray.scripts.scripts", "start")
    assert inherited.keys() & command.environment.keys() == set()


@pytest.mark.parametrize(
    ("storage", "found"),
    [
        (GcsStorage("h", 1), ()),
        (GcsStorage("h", 1, password_file="/p"), ("--password-file=/p",)),
        (GcsStorage("h", 1, password_env="P"), ("--password-env=P",)),
    ],
)
def test_what_is_said_is_where_the_password_is(storage: GcsStorage, found: tuple[str, ...]) -> None:
    assert own_options(storage) == found
    environment = {"P": PASSWORD, "Q": "stays"}
    if storage.password_file:
        with pytest.raises(StorageError):
            taken_password([*found, "start", "--head"], environment)
    else:
        password, rest = taken_password([*found, "start", "--head"], environment)
        assert rest == ("start", "--head")
        assert password == (PASSWORD if storage.password_env else "")
        assert environment == ({"Q": "stays"} if storage.password_env else {"P": PASSWORD, "Q": "stays"})


def test_the_password_goes_to_the_gcs_server_alone() -> None:
    calls: list[tuple[Any, ...]] = []

    def start(command: list[str], kind: str, **more: Any) -> None:
        calls.append((command, kind, more))

    started = with_flag(start, PASSWORD, process_type="gcs_server")
    started(["raylet"], "raylet", fate_share=True)
    started(["gcs"], "gcs_server", fate_share=True, env_updates={"A": "b"})
    assert calls == [
        (["raylet"], "raylet", {"fate_share": True}),
        (
            ["gcs", "--fromenv=redis_password"],
            "gcs_server",
            {"fate_share": True, "env_updates": {"A": "b", "FLAGS_redis_password": PASSWORD}},
        ),
    ]


def test_who_asks_for_the_sessions_name_has_the_password() -> None:
    asked = with_password(lambda *given: given, PASSWORD)
    assert asked("h", 1, "ray", "", False, b"config", b"session_name") == (
        *("h", 1, "ray", PASSWORD, False, b"config", b"session_name"),
    )


def test_this_ray_has_the_places_that_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import inspect

    import ray._private.node as node
    import ray._private.services as services

    assert "redis_password" in inspect.getsource(node.Node.check_persisted_session_name)
    assert list(inspect.signature(services.start_ray_process).parameters)[:2] == ["command", "process_type"]
    before = node.get_session_key_from_storage, services.start_ray_process
    monkeypatch.setattr(node, "get_session_key_from_storage", before[0])
    monkeypatch.setattr(services, "start_ray_process", before[1])
    stored_head.hand_over(PASSWORD)
    assert node.get_session_key_from_storage is not before[0]
    assert services.start_ray_process is not before[1]


def test_a_ray_without_them_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray._private.node as node

    monkeypatch.delattr(node, "get_session_key_from_storage")
    with pytest.raises(StorageError, match="this Ray starts its GCS in another way"):
        stored_head.hand_over(PASSWORD)


def test_a_password_that_is_not_there_is_said_before_ray_is_loaded(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "heliostat.raylink.stored_head", f"--password-file={tmp_path / 'none'}"]
    done = subprocess.run(
        [*command, "start", "--head"], check=False, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert done.stderr.startswith("head: the password file")
    assert "Traceback" not in done.stderr
