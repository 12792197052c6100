"""Commands for a head on another host: through a step of its job, else through ssh, and what drivers need."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.api.client import NoAnswer
from heliostat.api.transport import RelayTransport, SocketTransport
from heliostat.cli import child, start
from heliostat.cli.clusters import client_of
from heliostat.cli.commands import run, shell
from heliostat.cli.far_driver import end_of_job_there, is_far, job_there, pipe_to, shell_there, variables
from heliostat.cli.start import AlreadyRunning
from heliostat.cli.tunnels import beside_head, dashboard_tunnel, tunnel_environment
from heliostat.config.record import ClusterRecord, HeadJob, write_record
from heliostat.ports.errors import HeliostatError
from tests.unit.cli.conftest import Invoke

STEP = ("srun", "--jobid=123", "--overlap", "--quiet", "--nodes=1", "--ntasks=1")


@pytest.fixture
def far(cluster: ClusterRecord) -> ClusterRecord:
    return replace(
        cluster,
        host="n17",
        address="10.1.4.17:6379",
        client_port=10001,
        python="/shared/venv/bin/python",
        job=HeadJob("123", "/home/ada/head.slurm.log"),
    )


def test_a_step_of_the_job_comes_first_then_ssh(far: ClusterRecord) -> None:
    ssh = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "n17", "echo 'a b'")
    assert beside_head(far, ["echo", "a b"]) == [(*STEP, "echo", "a b"), ssh]
    assert beside_head(replace(far, job=None), ["echo", "a b"]) == [ssh]


def test_a_shell_that_is_itself_in_a_job_does_not_bend_the_step() -> None:
    environment = {
        "PATH": "/bin",
        "SLURM_CONF": "/etc/slurm.conf",
        "SLURM_JOB_ID": "9",
        "SLURM_NTASKS": "8",
        "SRUN_CPUS_PER_TASK": "2",
    }
    assert tunnel_environment(environment) == {"PATH": "/bin", "SLURM_CONF": "/etc/slurm.conf"}


def test_a_client_takes_the_socket_here_and_a_relay_elsewhere(
    far: ClusterRecord, cluster: ClusterRecord
) -> None:
    assert isinstance(client_of(cluster)._way, SocketTransport)
    way = client_of(far)._way
    assert isinstance(way, RelayTransport)
    relay = ["/shared/venv/bin/python", "-m", "heliostat.api.relay", f"{far.runtime_dir}/control.sock"]
    assert way._commands[0] == (*STEP, *relay)


def test_a_head_on_this_host_is_near_even_if_it_is_a_job(far: ClusterRecord, cluster: ClusterRecord) -> None:
    assert is_far(far)
    assert not is_far(replace(far, host=cluster.host))
    with pytest.raises(HeliostatError, match="the head of demo has not started"):
        is_far(replace(far, host="", address=""))


def test_a_driver_elsewhere_goes_through_rays_client(far: ClusterRecord) -> None:
    found = variables(far)
    assert found["RAY_ADDRESS"] == "ray://10.1.4.17:10001"
    assert found["RAY_AUTH_TOKEN_PATH"] == far.token_path
    # It would lead to this host's own loopback.
    assert "RAY_API_SERVER_ADDRESS" not in found


def test_a_script_runs_as_a_job_of_the_head_in_this_folder(far: ClusterRecord) -> None:
    found = job_there(far, ["python", "train me.py"], job_id="run-1")
    module = ["/shared/venv/bin/python", "-m", "heliostat.raylink.job", far.dashboard_url, "run-1"]
    assert found.argv == (*STEP, "--quit-on-interrupt", *module, os.getcwd(), "python", "train me.py")
    assert end_of_job_there(far, job_id="run-1").argv == (*STEP, "--quit-on-interrupt", *module)
    assert found.environment["RAY_ADDRESS"] == "10.1.4.17:6379"
    assert found.environment["RAY_AUTH_MODE"] == "token"


def test_without_a_job_ssh_carries_folder_and_variables(far: ClusterRecord) -> None:
    found = shell_there(replace(far, job=None), ["/bin/zsh"])
    assert found.argv[:-1] == ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-t", "n17")
    assert found.argv[-1].startswith(f"env --chdir={os.getcwd()} RAY_ADDRESS=10.1.4.17:6379 ")
    assert found.argv[-1].endswith(" /bin/zsh")


def test_a_pipe_goes_through_a_step_that_holds_nothing_back(far: ClusterRecord) -> None:
    found = pipe_to(far, ["python", "-m", "driver"])
    assert found.argv == (*STEP, "--unbuffered", "python", "-m", "driver")
    assert found.environment["RAY_ADDRESS"] == "10.1.4.17:6379"


def test_a_pipe_through_ssh_has_no_terminal(far: ClusterRecord) -> None:
    found = pipe_to(replace(far, job=None), ["python", "-m", "driver"])
    assert found.argv[:-1] == ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-T", "n17")
    assert found.argv[-1].endswith(" python -m driver")


@pytest.mark.parametrize("way", ["here", "step", "ssh"])
def test_a_pipe_has_no_secret_with_it(
    far: ClusterRecord, cluster: ClusterRecord, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setenv("LAB_TOKEN", "the gateway's own")
    record = {"here": cluster, "step": far, "ssh": replace(far, job=None)}[way]
    found = pipe_to(record, ["python"], without=["LAB_TOKEN"])
    assert "LAB_TOKEN" not in found.environment
    assert "the gateway's own" not in " ".join(found.argv)
    # A shell there may set it by itself.
    assert ("--unset=LAB_TOKEN" in found.argv[-1]) == (way == "ssh")
    assert found.environment["RAY_AUTH_TOKEN_PATH"] == record.token_path


def test_a_shell_is_one_beside_the_head(
    far: ClusterRecord, state: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(state / "demo" / "cluster.json", far)
    begun: list[tuple[str, ...]] = []
    monkeypatch.setenv("SHELL", "/bin/zsh")
    monkeypatch.setattr(shell.os, "execvpe", lambda program, argv, env: begun.append((program, *argv)))
    result = invoke("shell", "demo")
    assert begun == [("srun", *STEP, "--pty", "/bin/zsh")]
    assert "finds it on n17" in result.stderr


def test_a_command_runs_in_bash_beside_the_head_without_a_word(
    far: ClusterRecord, state: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(state / "demo" / "cluster.json", far)
    begun: list[tuple[str, ...]] = []
    monkeypatch.setattr(shell.os, "execvpe", lambda program, argv, env: begun.append((program, *argv)))
    result = invoke("shell", "demo", "-c", "echo 'a b' | wc")
    # It has no terminal here, which srun would want for --pty.
    assert begun == [("srun", *STEP, "--quit-on-interrupt", "bash", "-c", "echo 'a b' | wc")]
    assert result.stderr == ""


@pytest.mark.parametrize(("code", "stops"), [(0, 0), (7, 0), (137, 1)])
def test_run_on_a_cluster_elsewhere_runs_there_and_stops_what_was_cut_short(
    far: ClusterRecord,
    state: Path,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    stops: int,
) -> None:
    def refuse(*_: object, **__: object) -> ClusterRecord:
        raise AlreadyRunning(far)

    ran: list[tuple[str, ...]] = []
    stopped: list[tuple[str, ...]] = []

    def act(argv: tuple[str, ...], environment: dict[str, str]) -> int:
        ran.append(argv)
        return code

    file = state / "cluster.yaml"
    file.write_text("cluster_name: demo\n")
    monkeypatch.setattr(start, "start_cluster", refuse)
    monkeypatch.setattr(child, "run", act)
    monkeypatch.setattr(run.subprocess, "run", lambda argv, **_: stopped.append(argv))
    assert invoke("run", str(file), "--", "python", "x.py").exit_code == code
    (argv,) = ran
    assert argv[:6] == STEP
    assert argv[-2:] == ("python", "x.py")
    # The job that is stopped is the one that was begun.
    assert [one[-1] for one in stopped] == [argv[-4]] * stops


def test_the_dashboard_is_seen_through_a_tunnel(far: ClusterRecord) -> None:
    assert dashboard_tunnel(far) == "ssh -N -L 8265:127.0.0.1:8265 n17"
    assert dashboard_tunnel(replace(far, dashboard_url="")) == ""


def test_env_prints_the_clients_address(far: ClusterRecord, state: Path, invoke: Invoke) -> None:
    write_record(state / "demo" / "cluster.json", far)
    assert "export RAY_ADDRESS=ray://10.1.4.17:10001\n" in invoke("env", "demo").output


def test_a_cluster_of_another_login_node_is_taken_down_through_its_controller(
    far: ClusterRecord, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = replace(far, host="login2", job=None)
    path = state / "demo" / "cluster.json"
    write_record(path, login)

    class Client:
        def down(self) -> None:
            path.unlink()

    said: list[str] = []
    monkeypatch.setattr(start, "client_of", lambda record: Client())
    start.stop_cluster(login, say=said.append)
    assert not path.exists()


def test_one_that_can_not_be_reached_is_told_to_be_taken_down_there(
    far: ClusterRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        def down(self) -> None:
            raise NoAnswer("ssh: connect to host login2: timed out")

    monkeypatch.setattr(start, "client_of", lambda record: Client())
    with pytest.raises(HeliostatError, match=r"demo runs on login2: run `heliostat down demo` there \(ssh: "):
        start.stop_cluster(replace(far, host="login2", job=None), say=print)


def test_one_that_stays_is_said(far: ClusterRecord, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    login = replace(far, host="login2", job=None)
    write_record(state / "demo" / "cluster.json", login)

    class Client:
        def down(self) -> None: ...

    monkeypatch.setattr(start, "client_of", lambda record: Client())
    with pytest.raises(HeliostatError, match="demo is still there on login2"):
        start.stop_cluster(login, say=print, timeout_s=0.1)
