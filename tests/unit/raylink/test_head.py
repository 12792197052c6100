"""What a head is started with, and the token that guards it."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest
from ray.dashboard.consts import RAY_JOB_START_TIMEOUT_SECONDS_ENV_VAR

from heliostat.ports.errors import ClusterUnreachable, ConfigError
from heliostat.raylink import free_port
from heliostat.raylink.address_file import (
    USES_A_TOKEN_IT_FINDS,
    claim_address_file,
    release_address_file,
)
from heliostat.raylink.free_port import PortClaims, is_free, near
from heliostat.raylink.head import (
    TEMP_DIR_CHARS,
    HeadOptions,
    HeadPorts,
    choose_ports,
    driver_environment,
    head_command,
)
from heliostat.raylink.ready import wait_until_ready
from heliostat.raylink.token import ensure_token, read_token, token_path

PORTS = HeadPorts(gcs=7001, dashboard=7002, client=7003)


@contextmanager
def listening(host: str = "127.0.0.1") -> Iterator[int]:
    with socket.socket() as server:
        server.bind((host, 0))
        server.listen()
        yield server.getsockname()[1]


def options(**changes: object) -> HeadOptions:
    fields: dict[str, object] = {"temp_dir": "/tmp/x", "token_path": Path("/t/token"), "node_type": "front"}
    return HeadOptions(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_command_holds_shape_and_ports_and_no_monitor() -> None:
    command = head_command(
        options(
            resources={"CPU": 2, "GPU": 1, "memory": 5.0, "object_store_memory": 6.0, "b": 1, "a": 0.5},
            labels={"zone": "a", "kind": "x"},
            node_ip="10.0.0.1",
            worker_ports=(20, 30),
            ray_args=("--verbose",),
        ),
        PORTS,
        environment={},
        python="py",
    )
    assert command.argv[:4] == ("py", "-m", "ray.scripts.scripts", "start")
    arguments = set(command.argv)
    assert {
        "--head",
        "--block",
        "--no-monitor",
        "--port=7001",
        "--dashboard-host=127.0.0.1",
        "--dashboard-port=7002",
        "--ray-client-server-port=7003",
        "--min-worker-port=20",
        "--max-worker-port=30",
        "--num-cpus=2",
        "--num-gpus=1",
        "--memory=5",
        "--object-store-memory=6",
        '--resources={"a": 0.5, "b": 1}',
        "--labels=kind=x,zone=a",
        "--node-ip-address=10.0.0.1",
        "--verbose",
    } <= arguments


def test_a_head_without_cpus_gets_none() -> None:
    command = head_command(options(), PORTS, environment={})
    assert {"--num-cpus=0", "--num-gpus=0"} <= set(command.argv)
    assert not [one for one in command.argv if one.startswith(("--labels", "--resources", "--memory"))]


@pytest.mark.parametrize(
    ("caller", "file", "expected_s"),
    [
        ({}, {}, 604_800),
        ({"RAY_JOB_START_TIMEOUT_SECONDS": "60"}, {}, 60),
        ({}, {"RAY_JOB_START_TIMEOUT_SECONDS": "90"}, 90),
    ],
)
def test_a_job_may_wait_in_a_queue(caller: dict[str, str], file: dict[str, str], expected_s: float) -> None:
    """For longer than Ray's 15 minutes, unless somebody has said for how long."""
    found = head_command(options(environment=file), PORTS, environment=caller).environment
    # By the name that Ray's own job manager reads.
    assert float(found[RAY_JOB_START_TIMEOUT_SECONDS_ENV_VAR]) == expected_s


def test_the_environment_is_kept_sane_and_holds_no_secret() -> None:
    caller = {
        "PATH": "/bin",
        "RAY_ADDRESS": "1.2.3.4:5",
        "RAY_OVERRIDE_RESOURCES": "{}",
        "RAY_AUTH_TOKEN": "secret",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "1",
    }
    environment = head_command(options(environment={"MINE": "1"}), PORTS, environment=caller).environment
    assert not {"RAY_ADDRESS", "RAY_OVERRIDE_RESOURCES", "RAY_AUTH_TOKEN"} & environment.keys()
    assert "secret" not in environment.values()
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] == "/t/token"
    assert environment["RAY_enable_autoscaler_v2"] == "1"
    assert (environment["RAY_CLOUD_INSTANCE_ID"], environment["RAY_NODE_TYPE_NAME"]) == ("head", "front")
    assert (environment["PATH"], environment["MINE"], environment["RAY_USAGE_STATS_ENABLED"]) == (
        "/bin",
        "1",
        "1",
    )


def test_a_long_temp_dir_is_refused_with_its_limit() -> None:
    with pytest.raises(ConfigError, match=str(TEMP_DIR_CHARS)):
        head_command(options(temp_dir="/tmp/" + "x" * TEMP_DIR_CHARS), PORTS, environment={})


def test_a_port_in_use_is_replaced_and_said() -> None:
    with listening() as dashboard, listening("0.0.0.0") as gcs, listening() as client, PortClaims() as claims:
        found = choose_ports(options(port=gcs, dashboard_port=dashboard, client_port=client), claims)
    assert len({found.gcs, found.dashboard, found.client}) == 3
    assert found.gcs > gcs
    assert found.client < client
    assert found.notes[0] == f"port {gcs} is in use: the GCS takes {found.gcs}"
    assert len(found.notes) == 3


def test_ports_are_free_only_if_nobody_listens() -> None:
    with PortClaims() as claims:
        with listening() as port:
            assert not is_free(port)
            assert not is_free(port, host="127.0.0.1")
            assert near(port, claims=claims, taken={port + 1}) > port + 1
        assert is_free(port)
        with pytest.raises(ConfigError, match="no port"):
            near(65536, claims=claims)


@pytest.mark.skipif(sys.platform != "linux", reason="claims are names of Linux's abstract sockets")
def test_a_port_that_another_head_will_bind_is_not_chosen() -> None:
    with listening() as port:
        pass
    with PortClaims() as first, PortClaims() as second:
        assert near(port, claims=first) == port
        assert near(port, claims=first) == port, "one's own claim stands in nobody's way"
        assert is_free(port)
        other = near(port, claims=second)
        assert other > port
        first.close()
        assert near(port, claims=second) == port
    with PortClaims() as third:
        assert [third.take(port), third.take(other)] == [True, True]


@pytest.mark.skipif(sys.platform != "linux", reason="claims are names of Linux's abstract sockets")
def test_a_port_that_is_in_use_stays_unclaimed() -> None:
    with listening() as port, PortClaims() as first, PortClaims() as second:
        assert near(port, claims=first) != port
        assert second.take(port)
    with PortClaims() as first, PortClaims() as second:
        assert near(port, claims=first) == port
        with socket.create_server(("127.0.0.1", port)):
            assert near(port, claims=first) != port
            assert not second.take(port), "what was ours before stays so"


def test_where_names_are_forbidden_heads_start_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as port:
        pass

    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with PortClaims() as claims:
        held = Mock(spec=socket.socket, bind=forbidden)
        with monkeypatch.context() as patch:
            patch.setattr(free_port.socket, "socket", Mock(return_value=held))
            assert claims.take(port)
        held.close.assert_not_called()
    held.close.assert_called_once_with()


@pytest.mark.skipif(sys.platform != "linux", reason="claims are names of Linux's abstract sockets")
def test_a_claim_lives_as_long_as_the_child_that_has_it() -> None:
    with listening() as port:
        pass
    with PortClaims() as claims:
        near(port, claims=claims)
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=claims.filenos())
    try:
        with PortClaims() as other:
            assert not other.take(port)
    finally:
        child.communicate()
    with PortClaims() as other:
        assert other.take(port)


def test_a_driver_needs_only_places() -> None:
    made = driver_environment(address="h:1", dashboard_url="http://d", token_path=Path("/t/token"))
    assert made == {
        "RAY_ADDRESS": "h:1",
        "RAY_API_SERVER_ADDRESS": "http://d",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": "/t/token",
        "RAY_enable_autoscaler_v2": "1",
    }


def test_a_head_that_ended_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(ClusterUnreachable, match="ended while it started"):
        wait_until_ready("127.0.0.1:1", token="t", temp_dir=str(tmp_path), deadline_s=30, alive=lambda: False)


def test_a_head_that_is_late_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(ClusterUnreachable, match="not ready within"):
        wait_until_ready("127.0.0.1:1", token="t", temp_dir=str(tmp_path), deadline_s=0.3)


def test_a_missing_token_is_made_for_its_owner_only(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    path = ensure_token(environment)
    assert path == tmp_path / ".ray" / "auth_token"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    token = read_token(path)
    assert len(token) == 64
    assert read_token(ensure_token(environment)) == token
    assert [one.name for one in path.parent.iterdir()] == ["auth_token"]


def test_the_users_own_place_wins() -> None:
    assert token_path({"RAY_AUTH_TOKEN_PATH": "/a/b", "HOME": "/h"}) == Path("/a/b")


def test_a_token_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("abc")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        ensure_token({"RAY_AUTH_TOKEN_PATH": str(path)})


@pytest.mark.parametrize("content", ["", " \n", "a\nb", "ünicode"])
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(content)
    with pytest.raises(ConfigError, match="holds no token"):
        read_token(path)


def test_another_token_in_the_shell_is_refused(tmp_path: Path) -> None:
    environment = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    path = ensure_token(environment)
    assert ensure_token({**environment, "RAY_AUTH_TOKEN": read_token(path)}) == path
    with pytest.raises(ConfigError, match="unset RAY_AUTH_TOKEN"):
        ensure_token({**environment, "RAY_AUTH_TOKEN": "another"})


def test_a_place_that_refuses_writing_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't be"):
        ensure_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "file" / "token")})


def test_the_address_file_is_taken_from_the_dead_only(tmp_path: Path) -> None:
    environment = {"RAY_TMPDIR": str(tmp_path), "RAY_AUTH_MODE": "token"}
    path = tmp_path / "ray" / "ray_current_cluster"
    with listening() as port:
        living = f"127.0.0.1:{port}"
        assert claim_address_file(living, environment) == ""
        assert "RAY_ADDRESS=127.0.0.1:1" in claim_address_file("127.0.0.1:1", environment)
        assert path.read_text() == living
    assert claim_address_file("127.0.0.1:1", environment) == ""
    assert path.read_text() == "127.0.0.1:1"
    release_address_file(living, environment)
    assert path.exists()
    release_address_file("127.0.0.1:1", environment)
    assert not path.exists()


@pytest.mark.parametrize(
    ("by_itself", "mode", "said"),
    [(True, {}, False), (False, {}, True), (False, {"RAY_AUTH_MODE": "token"}, False)],
)
def test_a_ray_that_uses_no_token_by_itself_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_itself: bool, mode: dict[str, str], said: bool
) -> None:
    import ray._private.worker

    monkeypatch.setattr(ray._private.worker, USES_A_TOKEN_IT_FINDS, None, raising=False)
    if not by_itself:
        monkeypatch.delattr(ray._private.worker, USES_A_TOKEN_IT_FINDS)
    # The second time the file is ours already, which changes nothing.
    for _ in range(2):
        note = claim_address_file("h:1", {"RAY_TMPDIR": str(tmp_path), **mode})
        assert ("set RAY_AUTH_MODE=token, or run `heliostat shell`" in note) is said


def test_an_address_file_that_refuses_is_said(tmp_path: Path) -> None:
    (tmp_path / "ray").write_text("")
    assert "can't be written" in claim_address_file("h:1", {"RAY_TMPDIR": str(tmp_path)})
