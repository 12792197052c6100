"""What a head's job does on its node before it becomes the wrapper."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.cli import addresses, head_job, head_queue, leftovers
from heliostat.cli.addresses import Interface
from heliostat.cli.head import HeadPlan
from heliostat.cli.head_job import _arguments, job_host, lease_end_s, prepared, temp_root
from heliostat.cli.launch_file import LaunchFile
from heliostat.cli.successor import SuccessorPlaces
from heliostat.config.cluster_file import FileConfigSource
from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord, HeadJob, read_record, write_record
from heliostat.model.node_type import ClusterSpec, NodeType, Policy
from heliostat.model.resources import Resources
from heliostat.ports.errors import ConfigError, HeliostatError, Unavailable
from heliostat.providers.slurm.tags import Tag, comment
from heliostat.raylink.free_port import PortClaims
from tests.unit.cli.fake_slurm import AWAY, FakeJob, FakeSlurm

HOST = (Interface("lo", "127.0.0.1"), Interface("eth0", "10.1.4.17"), Interface("ib0", "10.2.4.17"))
UID = "0123456789abcdef" * 2
RECORD = ClusterRecord(
    cluster_name="demo",
    cluster_uid=UID,
    owner="ada@login1",
    created_at_s=1.0,
    source="/home/ada/demo.yaml",
    host="",
    runtime_dir="",
    token_path="/home/ada/.ray/auth_token",
    ray_version="2.60.0",
    python_version="3.11",
    phase="queued",
    job=HeadJob("", "/home/ada/head.slurm.log"),
)


def spec(section: Mapping[str, object] | None = None, **options: object) -> ClusterSpec:
    return ClusterSpec(
        name="demo",
        policy=Policy(node_types=(), max_workers=2, idle_timeout_s=60.0),
        head_type=NodeType("front", "slurm", Resources(), shape_id="s", options=options),
        backends={"slurm": section or {}},
    )


@pytest.fixture(autouse=True)
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(addresses, "interfaces", lambda: HOST)
    monkeypatch.setattr(addresses, "resolved", lambda name: ("10.1.4.17",))
    monkeypatch.setattr(addresses, "routed", lambda: None)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StatePlaces:
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    monkeypatch.setenv("HELIOSTAT_RUNTIME_DIR", str(run))
    monkeypatch.setattr(FileConfigSource, "load", lambda self: spec({"network": "ib0"}))
    made = StatePlaces(tmp_path / "demo")
    made.logs.mkdir(parents=True)
    made.config.write_text("present")
    write_record(made.record, RECORD)
    return made


def planned(places: StatePlaces, arguments: Namespace, environment: Mapping[str, str]) -> HeadPlan:
    with PortClaims() as claims:
        return prepared(places, UID, arguments=arguments, environment=environment, claims=claims)


def prepare(places: StatePlaces, *argv: str) -> ClusterRecord:
    arguments = _arguments([str(places.folder), UID, *argv])
    environment = {"SLURM_JOB_ID": "123", "SLURM_JOB_END_TIME": "1760000000", "TMPDIR": "/tmp"}
    planned(places, arguments, environment)
    record = read_record(places.record)
    assert record is not None
    return record


def test_it_writes_down_where_the_head_is(places: StatePlaces) -> None:
    record = prepare(places)
    assert record.address.startswith("10.2.4.17:")
    assert (record.host, record.node_ip) == (socket.gethostname(), "10.2.4.17")
    assert record.job == HeadJob("123", "/home/ada/head.slurm.log", 1760000000.0)
    assert (record.python, record.phase) == (sys.executable, "starting")
    assert record.client_port
    assert Path(record.runtime_dir).is_dir()


def test_the_wrapper_finds_what_it_needs(places: StatePlaces) -> None:
    record = prepare(places, "--idle-after=60", "--attached=/home/ada/attached")
    launch = LaunchFile.read(places.folder)
    assert launch.cluster_uid == UID
    assert launch.address == record.address
    assert (launch.idle_after_s, launch.attached_file) == (60.0, "/home/ada/attached")
    assert (launch.attached_pid, launch.head_temp_dir) == (0, f"/tmp/hel-{UID[:8]}")
    assert "--node-ip-address=10.2.4.17" in launch.head_argv


def test_a_head_takes_no_more_than_slurm_gave(
    places: StatePlaces, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = replace(spec({"network": "ib0"}).head_type, resources=Resources.of({"CPU": 4, "memory": 2**30}))
    monkeypatch.setattr(FileConfigSource, "load", lambda self: replace(spec(), head_type=wanted))
    given = {"SLURM_JOB_ID": "123", "SLURM_CPUS_ON_NODE": "2", "SLURM_MEM_PER_NODE": "500"}
    head = planned(places, _arguments([str(places.folder), UID]), given)
    assert {"--num-cpus=2", f"--memory={500 * 2**20}"} <= set(head.argv)
    (labels,) = [one for one in head.argv if one.startswith("--labels=")]
    assert "heliostat.io/job-id=123" in labels
    assert "head: slurm gave CPU 2, the node type promises 4: Ray starts with 2" in capsys.readouterr().out


def test_heads_that_start_together_on_one_node_wish_for_different_ports(places: StatePlaces) -> None:
    record = prepare(places)
    offset = int(UID[:8], 16) % 1000
    assert offset
    assert int(record.address.rpartition(":")[2]) - 6379 - offset in range(20)
    assert int(record.dashboard_url.rpartition(":")[2]) - 8265 - offset in range(20)
    assert 10001 - offset - record.client_port in range(20)


def test_a_port_that_was_asked_for_is_tried_first(places: StatePlaces) -> None:
    assert int(prepare(places, "--port=23456").address.rpartition(":")[2]) in range(23456, 23476)


def test_a_head_leaves_the_machines_memory_to_others(places: StatePlaces) -> None:
    given = {"SLURM_JOB_ID": "123", "SLURM_MEM_PER_NODE": "1000"}
    head = planned(places, _arguments([str(places.folder), UID]), given)
    (store,) = [one for one in head.argv if one.startswith("--object-store-memory=")]
    assert int(store.partition("=")[2]) <= 300 * 2**20


@pytest.mark.parametrize("left", [None, replace(RECORD, cluster_uid="another"), replace(RECORD, job=None)])
def test_a_job_whose_cluster_is_gone_touches_nothing(places: StatePlaces, left: ClusterRecord | None) -> None:
    places.record.unlink()
    if left is not None:
        write_record(places.record, left)
    with pytest.raises(HeliostatError, match="taken down before its head began"):
        prepare(places)
    assert read_record(places.record) == left
    assert not (places.folder / "launch.json").exists()


def successor(places: StatePlaces) -> SuccessorPlaces:
    """Let this job's cluster be one that waits to follow another."""
    after = SuccessorPlaces(places.folder)
    write_record(after.record, RECORD)
    after.config.write_text("next")
    places.record.unlink()
    return after


def test_a_successor_takes_the_place_of_its_predecessor(
    places: StatePlaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It has gone in order: its record is not there, and nothing of it is looked for.
    monkeypatch.delattr(head_queue, "LocalRunner")
    after = successor(places)
    record = prepare(places)
    assert record.cluster_uid == UID
    assert places.config.read_text() == "next"
    assert not after.record.exists()
    assert not after.config.exists()


def left_in_slurm(uid: str) -> FakeSlurm:
    tag = Tag("demo", uid, "ada@login1", "lab12345", "cpu", "s", 4)
    return FakeSlurm(jobs={500: FakeJob(500, comment(tag), tasks="0-3", state="RUNNING")})


@pytest.mark.parametrize("away", [set(), {("squeue", 1), ("scancel", 1)}])
def test_workers_of_a_head_that_died_hard_are_cancelled_by_its_successor(
    places: StatePlaces, monkeypatch: pytest.MonkeyPatch, away: set[tuple[str, int]]
) -> None:
    successor(places)
    write_record(places.record, replace(RECORD, cluster_uid="dead"))
    slurm = left_in_slurm("dead")
    slurm.away = away
    monkeypatch.setattr(head_queue, "LocalRunner", lambda environment: slurm)
    monkeypatch.setattr(head_queue, "POLL_S", 0.0)
    assert prepare(places).cluster_uid == UID
    assert slurm.jobs == {}


def test_a_slurm_that_stays_away_does_not_keep_the_successor_from_starting(
    places: StatePlaces, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    successor(places)
    write_record(places.record, replace(RECORD, cluster_uid="dead"))
    slurm = left_in_slurm("dead")
    slurm.refusals["squeue"] = Unavailable(AWAY)
    monkeypatch.setattr(head_queue, "LocalRunner", lambda environment: slurm)
    monkeypatch.setattr(leftovers, "PATIENCE_S", 0.0)
    assert prepare(places).cluster_uid == UID
    assert (
        f"head: jobs of demo may be left in Slurm, which could not be asked: {AWAY}"
        in capsys.readouterr().out
    )


def test_a_job_that_can_not_plan_its_head_says_so_and_leaves_the_record_for_who_asks(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    write_record(folder / "cluster.json", RECORD)
    (folder / "config.yaml").write_text("cluster_name: demo\n")
    done = subprocess.run(
        [sys.executable, "-m", "heliostat.cli.head_job", str(folder), UID],
        env={**os.environ, "SLURM_JOB_ID": "123", "HELIOSTAT_SITE_FILE": ""},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.startswith("head: ")
    assert "provider" in done.stdout
    assert read_record(folder / "cluster.json") == RECORD


def test_a_job_that_is_cancelled_while_it_plans_leaves_no_folder_on_its_node(
    places: StatePlaces, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cancelled(*_: object, **__: object) -> HeadPlan:
        assert list(Path(os.environ["HELIOSTAT_RUNTIME_DIR"]).iterdir())
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("not reached")

    monkeypatch.setenv("SLURM_JOB_ID", "123")
    monkeypatch.setattr(head_job, "plan_head", cancelled)
    monkeypatch.setattr(sys, "argv", ["head_job", str(places.folder), UID])
    with pytest.raises(SystemExit) as ended:
        head_job.main()
    assert ended.value.code == 143
    assert list(Path(os.environ["HELIOSTAT_RUNTIME_DIR"]).iterdir()) == []
    assert "head: told to end before the head was there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("found", "host"),
    [
        (spec(), "10.1.4.17"),
        (spec({"network": ["ib1", "ib0"]}), "10.2.4.17"),
        (spec({"network": "ib0"}, network="10.1.0.0/16"), "10.1.4.17"),
        (spec({"network": "127.0.0.0/8"}), "127.0.0.1"),
    ],
)
def test_the_heads_own_network_comes_before_its_sections(found: ClusterSpec, host: str) -> None:
    assert job_host(found) == host


def test_a_network_that_the_node_lacks_names_the_key() -> None:
    with pytest.raises(ConfigError, match=r"available_node_types\.front\.node_config\.network: .*ib7"):
        job_host(spec(network="ib7"))
    with pytest.raises(ConfigError, match=r"provider\.backends\.slurm\.network: .*ib7"):
        job_host(spec({"network": "ib7"}))


@pytest.mark.parametrize(
    ("environment", "root"),
    [
        ({"SLURM_TMPDIR": "/var/tmp", "TMPDIR": "/tmp"}, "/var/tmp"),
        ({"SLURM_TMPDIR": "/local/scratch/with/a/long/name/123", "TMPDIR": "/var/tmp"}, "/var/tmp"),
        ({"SLURM_TMPDIR": "/no/such"}, "/tmp"),
        ({}, "/tmp"),
    ],
)
def test_rays_temp_dir_is_on_the_nodes_own_disk(environment: dict[str, str], root: str) -> None:
    assert temp_root(spec(), environment) == root


def test_a_temp_root_that_is_given_is_the_only_one() -> None:
    assert temp_root(spec({"temp_root": "/tmp"}, temp_root="/var/tmp"), {}) == "/var/tmp"
    with pytest.raises(HeliostatError, match=r"/no/such; allowed is one .* of at most 25 characters"):
        temp_root(spec({"temp_root": "/no/such"}), {"TMPDIR": "/tmp"})


@pytest.mark.parametrize(
    ("told", "end_s"), [("1760000000", 1760000000.0), ("", None), ("Unknown", None), ("NONE", None)]
)
def test_the_leases_end_is_the_jobs(told: str, end_s: float | None) -> None:
    assert lease_end_s({"SLURM_JOB_END_TIME": told}) == end_s
    assert lease_end_s({}) is None


def test_the_wrapper_takes_the_jobs_place(
    places: StatePlaces, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    began: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1760000000")
    monkeypatch.setattr(head_job.os, "execve", lambda program, argv, env: began.append((argv, env)))
    monkeypatch.setattr(sys, "argv", ["head_job", str(places.folder), UID])
    head_job.main()
    ((argv, environment),) = began
    assert argv[1:] == ["-m", "heliostat.cli.wrapper", str(places.folder)]
    assert environment["HELIOSTAT_CLUSTER_UID"] == UID
    assert (environment["RAY_AUTH_MODE"], environment["RAY_AUTH_TOKEN_PATH"]) == ("token", RECORD.token_path)
    assert f"head: on {socket.gethostname()}, 10.2.4.17:" in capsys.readouterr().out
