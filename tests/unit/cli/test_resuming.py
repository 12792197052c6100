"""Whether a cluster that crashed goes on: only with its state, and only as what it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from heliostat.cli import preparing, resuming, start
from heliostat.cli.clusters import places_of
from heliostat.cli.files import load
from heliostat.cli.head import HeadPlan
from heliostat.cli.launch_file import LaunchFile
from heliostat.cli.preparing import StartOptions
from heliostat.cli.resuming import leave, port_of, refuse_other_address, to_resume
from heliostat.cli.system import process_start_ticks, tagged_processes
from heliostat.config.record import ClusterRecord, write_record
from heliostat.model.node_type import ClusterSpec
from heliostat.ports.errors import HeliostatError, StorageError
from heliostat.raylink.free_port import PortClaims

FILE = """
cluster_name: demo
provider:
  type: external
  backends: {local: {cpus: 4, gpus: 0, memory: 8GiB}}
  gcs_storage: {address: 'redis://127.0.0.1:1'}
available_node_types:
  head: {resources: {CPU: 0}, node_config: {backend: local}}
  cpu: {resources: {CPU: 1}, max_workers: 3, node_config: {backend: local}}
head_node_type: head
"""
# Ray's agents change their title, and may keep a part of their environment only.
WORKER = ["/bin/sh", "-c", "env -u HELIOSTAT_INSTANCE_ID sleep 300 & echo $!; wait"]
SLEEPER = [sys.executable, "-S", "-c", "import sys; print('up', flush=True); sys.stdin.read()"]

Spec = Callable[[str], ClusterSpec]


@pytest.fixture
def spec_of(tmp_path: Path) -> Spec:
    def of(text: str) -> ClusterSpec:
        path = tmp_path / "changed.yaml"
        path.write_text(text)
        return load(path)

    return of


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    # Another cluster of this host may have the port of the record.
    monkeypatch.setattr(resuming, "PORT_S", 0.0)


@pytest.fixture
def crashed(cluster: ClusterRecord, spec_of: Spec, monkeypatch: pytest.MonkeyPatch) -> ClusterRecord:
    """A cluster that crashed; the server has its state."""
    monkeypatch.setattr(resuming, "has_state", lambda *_, **__: True)
    monkeypatch.setattr(resuming, "refuse_unusable", lambda _: None)
    places_of(cluster).config.write_text(FILE)
    record = replace(
        cluster,
        cluster_uid=f"u{os.getpid()}",
        session_name="session_1",
        gcs_storage=spec_of(FILE).gcs_storage,
        ray_version=version("ray"),
        python_version=".".join(map(str, sys.version_info[:2])),
    )
    write_record(places_of(record).record, record)
    return record


def test_it_goes_on_with_its_state(crashed: ClusterRecord, spec_of: Spec) -> None:
    said: list[str] = []
    assert to_resume(crashed, spec_of(FILE), say=said.append) is crashed
    assert said == ["demo crashed: it goes on with the state in redis://127.0.0.1:1"]


@pytest.mark.parametrize(
    "changed",
    [{"gcs_storage": None}, {"session_name": ""}, {"phase": "down"}],
    ids=lambda one: next(iter(one)),
)
def test_without_a_state_there_is_nothing_to_go_on_with(
    crashed: ClusterRecord, spec_of: Spec, changed: dict[str, str | None]
) -> None:
    said: list[str] = []
    assert to_resume(replace(crashed, **changed), spec_of(FILE), say=said.append) is None  # type: ignore[arg-type]
    assert said == []


def test_a_server_that_has_lost_it_is_said(
    crashed: ClusterRecord, spec_of: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(resuming, "has_state", lambda *_, **__: False)
    assert to_resume(crashed, spec_of(FILE), say=said.append) is None
    assert said == ["demo crashed, and redis://127.0.0.1:1 has lost its state: it starts afresh"]


def test_a_server_that_is_away_is_waited_for(
    crashed: ClusterRecord, spec_of: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The workers may still be there, and so may the state.
    monkeypatch.undo()
    with pytest.raises(StorageError, match="Connection refused"):
        to_resume(crashed, spec_of(FILE), say=print)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("127.0.0.1:1", "127.0.0.1:2", "provider.gcs_storage changed"),
        ("  gcs_storage: {address: 'redis://127.0.0.1:1'}\n", "", "provider.gcs_storage changed"),
        ("cpus: 4", "cpus: 5", "provider.backends changed"),
    ],
)
def test_a_file_that_a_running_cluster_could_not_take_is_refused(
    crashed: ClusterRecord, spec_of: Spec, old: str, new: str, said: str
) -> None:
    with pytest.raises(HeliostatError, match=said) as caught:
        to_resume(crashed, spec_of(FILE.replace(old, new)), say=print)
    assert "`heliostat down demo` ends what is left of it" in str(caught.value)


def test_another_limit_is_no_reason(crashed: ClusterRecord, spec_of: Spec) -> None:
    assert to_resume(crashed, spec_of(FILE.replace("max_workers: 3", "max_workers: 2")), say=print) is crashed


def test_another_ray_than_the_workers_is_refused(crashed: ClusterRecord, spec_of: Spec) -> None:
    with pytest.raises(HeliostatError, match=r"its workers have Ray 1\.0 and Python 3"):
        to_resume(replace(crashed, ray_version="1.0"), spec_of(FILE), say=print)


def test_a_port_that_a_dead_process_still_has_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [False, False, True]
    monkeypatch.setattr(resuming, "PORT_S", 60.0)
    monkeypatch.setattr(resuming, "is_free", lambda _: answers.pop(0))
    resuming._await_port(6379)
    assert answers == []


def test_workers_look_for_their_head_at_one_place(crashed: ClusterRecord) -> None:
    assert port_of(crashed) == 6379
    refuse_other_address(crashed, "127.0.0.1:6379")
    with pytest.raises(
        HeliostatError, match=r"wait for their head at 127\.0\.0\.1:6379, .*127\.0\.0\.1:6380 now"
    ):
        refuse_other_address(crashed, "127.0.0.1:6380")


@pytest.mark.parametrize("again", [True, False])
def test_its_host_is_not_set_up_again(
    crashed: ClusterRecord, spec_of: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    monkeypatch.setenv("HELIOSTAT_RUNTIME_DIR", str(tmp_path / "run"))
    setup = {"commands": [["setup_commands.0", "sleep 200"]]}
    plan = HeadPlan((), {}, {}, str(tmp_path), crashed.address, "", "", 10001, (), setup=setup)
    monkeypatch.setattr(start, "plan_head", lambda *_, **__: plan)
    places, spec = places_of(crashed), spec_of(FILE)
    if not again:
        places.record.unlink()
        places.folder.chmod(0o700)
        monkeypatch.setattr(preparing, "refuse_unusable", lambda *_: None)
    with PortClaims() as claims:
        _, head = start._prepare(
            tmp_path / "changed.yaml",
            spec=spec,
            places=places,
            options=StartOptions(),
            crashed=crashed if again else None,
            claims=claims,
        )
    expected = {} if again else setup
    assert (head.setup, LaunchFile.read(places.folder).head_setup) == (expected, expected)


def test_the_workers_are_spared_and_the_rest_of_the_crash_is_not(
    crashed: ClusterRecord, spec_of: Spec
) -> None:
    tags = {"HELIOSTAT_CLUSTER_UID": crashed.cluster_uid}
    head, (worker, agent) = _sleeper(tags), _worker(tags)
    try:
        assert set(tagged_processes(*next(iter(tags.items())))) == {head.pid, worker.pid, agent}
        to_resume(crashed, spec_of(FILE), say=print)
        assert head.wait(5) != 0
        assert worker.poll() is None
        assert process_start_ticks(agent) is not None
    finally:
        os.kill(agent, signal.SIGKILL)
        _ended(head, worker)


@pytest.mark.parametrize("gone", [False, True])
def test_a_start_that_came_to_nothing_leaves_things_as_they_were(crashed: ClusterRecord, gone: bool) -> None:
    tags = {"HELIOSTAT_CLUSTER_UID": crashed.cluster_uid}
    wrapper, (worker, agent) = _sleeper(tags), _worker(tags)
    try:
        if gone:
            # As where the new head turned out to be another session: the cluster went down.
            places_of(crashed).record.unlink()
        said = leave(crashed, wrapper)
        assert said == ("" if gone else resuming_words())
        assert wrapper.poll() is not None
        assert worker.poll() is None
    finally:
        os.kill(agent, signal.SIGKILL)
        _ended(wrapper, worker)


def resuming_words() -> str:
    return (
        "the state of demo and its workers are as they were: `heliostat up` tries again, "
        "`heliostat down demo` ends them"
    )


def _sleeper(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    made = subprocess.Popen(
        SLEEPER, env={**os.environ, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert made.stdout is not None
    made.stdout.readline()
    return made


def _worker(tags: dict[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    """Start a worker with a session of its own; return it, and a process in it that has lost its instance."""
    environment = {**os.environ, **tags, "HELIOSTAT_INSTANCE_ID": "la.0"}
    made = subprocess.Popen(WORKER, env=environment, stdout=subprocess.PIPE, start_new_session=True)
    assert made.stdout is not None
    agent = int(made.stdout.readline())
    until_s = time.monotonic() + 10
    while b"HELIOSTAT_INSTANCE_ID" in Path(f"/proc/{agent}/environ").read_bytes():
        assert time.monotonic() < until_s
    return made, agent


def _ended(*processes: subprocess.Popen[bytes]) -> None:
    for one in processes:
        one.kill()
        one.communicate(timeout=5)
