"""A head that keeps its state in a real Valkey comes back with it; one that does not is a stranger."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.cli.start import StartOptions, start_cluster
from heliostat.cli.system import process_start_ticks, tagged_processes
from heliostat.config.record import ClusterRecord, read_record
from heliostat.journal import last_event
from heliostat.ports.errors import ClusterUnreachable
from heliostat.ports.journal import Event
from heliostat.raylink.free_port import PortClaims, is_free
from heliostat.raylink.reader import GcsReader
from tests.integration.cluster.conftest import (
    CLUSTER,
    Cluster,
    cluster,
    finished,
    places_of,
    until,
)
from tests.integration.real_head import free_port, real_head
from tests.valkey import Valkey, valkey

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

# As everywhere in these tests: by default Ray takes 30 % of the machine's memory for it.
SMALL = {"object_store_memory": 80 * 2**20}
NAME, PASSWORD = "kept", "s3cret-of-the-test"

COUNTER = """
@ray.remote(num_cpus=1)
class Counter:
    def __init__(self):
        self.count = 0
    def add(self):
        self.count += 1
        return self.count, os.getpid(), ray.get_runtime_context().get_node_id()
counter = Counter.options(name="counter", namespace="n", lifetime="detached", get_if_exists=True).remote()
print("counted", *ray.get(counter.add.remote()))
"""
END = """
ray.kill(ray.get_actor("counter", namespace="n"))
"""


def text(storage: str) -> str:
    made = CLUSTER.format(name=NAME, workers=2, idle_timeout_s=600, orphan_timeout_s=60)
    return made.replace("  head_timeout_s: 20\n", f"  head_timeout_s: 60\n{storage}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with valkey(tmp_path_factory.mktemp("valkey"), password=PASSWORD) as found:
        yield found


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, server: Valkey) -> Iterator[Cluster]:
    """A cluster that keeps its head's state, for the tests of this module in their order."""
    storage = f"{{address: {server.storage.address}, password_file: {server.password_file}}}"
    folder = tmp_path_factory.mktemp("cluster")
    with cluster(folder, text(f"  gcs_storage: {storage}\n"), detach=True, port=free_port()) as found:
        yield found
        # Else its worker would be busy, and have its time to finish.
        finished(found.driver(END), 60)
    assert server.names() == [], "down deletes what the cluster has stored"


def counted(found: Cluster) -> list[str]:
    """Return the counter's next number, its process and its node."""
    (line,) = re.findall(r"^counted (.*)$", finished(found.driver(COUNTER), 60), re.MULTILINE)
    return line.split()


def events(found: Cluster, kind: str) -> list[Event]:
    return [one for one in found.client.events(limit=500) if one.kind == kind]


def head_node(found: Cluster) -> str:
    token = Path(found.record.token_path).read_text().strip()
    with contextlib.suppress(ClusterUnreachable), GcsReader(found.record.address, token) as reader:
        return reader.facts().head_node_id
    return ""


def record_of(name: str) -> ClusterRecord:
    record = read_record(places_of(name).record)
    assert record is not None
    return record


def kill(pids: list[int]) -> None:
    for pid in pids:
        # Some end by themselves as soon as the first of them is gone.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def named(name: str, pids: list[int]) -> list[int]:
    return [pid for pid in pids if _command(pid).partition(b"\0")[0].endswith(name.encode())]


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def test_kill_9_of_the_gcs_loses_neither_actor_nor_worker(kept: Cluster, server: Valkey) -> None:
    count, *where = counted(kept)
    assert count == "1"
    before = record_of(NAME)
    instances = kept.running()
    assert len(instances) == 1
    assert {key.split("@")[0] for key in server.names()} == {f"RAYheliostat-{before.cluster_uid}"}
    (gcs,) = named("gcs_server", tagged_processes("HELIOSTAT_HEAD", before.cluster_uid))
    head = head_node(kept)
    kill([gcs])
    until(lambda: len(events(kept, "head")) == 3 or None, "loss and return of the head", 60)
    lost, back = (one.text for one in events(kept, "head")[1:])
    assert "the head does not answer" in lost
    assert back == f"the head answers, session {before.session_name}"
    # Its GCS is there first; a driver that comes before its node would be sent to the old one.
    until(lambda: head_node(kept) not in ("", head) or None, "a new head node", 60)
    assert counted(kept) == ["2", *where]
    goes_on(kept, instances)


def goes_on(kept: Cluster, instances: list[str]) -> None:
    """Check that the workers are the ones that were there, and that nothing else was asked for."""
    until(lambda: kept.running() == instances or None, "the same worker", 30)
    assert [one.instance_id for one in kept.status().instances] == instances
    assert len(events(kept, "launch")) == 1
    assert [one.text for kind in ("release", "drain", "adopt", "down") for one in events(kept, kind)] == []


def test_the_password_is_in_no_argument_no_worker_and_no_log(kept: Cluster, server: Valkey) -> None:
    secret = PASSWORD.encode()
    pids = kept.processes()
    assert [pid for pid in pids if secret in _command(pid)] == []
    holders = [pid for pid in pids if secret in Path(f"/proc/{pid}/environ").read_bytes()]
    assert holders == named("gcs_server", pids)
    logs = [Path(os.environ["HELIOSTAT_STATE_DIR"]), Path(f"/tmp/hel-{kept.record.cluster_uid[:8]}")]
    for log in (path for folder in logs for path in folder.rglob("*")):
        if log.is_file():
            assert secret not in log.read_bytes(), log


def claimed(record: ClusterRecord) -> list[bool]:
    """Say of each port of the head whether no other head of ours would take it, bound or not."""
    places = (record.address, record.dashboard_url, f":{record.client_port}")
    with PortClaims() as claims:
        return [not claims.take(int(one.rpartition(":")[2])) for one in places]


def test_after_a_crash_of_the_whole_head_the_next_up_goes_on(kept: Cluster) -> None:
    instances, (count, *where) = kept.running(), counted(kept)
    crashed = record_of(NAME)
    assert crashed.wrapper is not None
    # A bootstrap and its child; Ray's own workers come and go.
    spared = [pid for pid in kept.processes() if b"bootstrap.py" in _command(pid)]
    assert len(spared) == 2
    # The kernel tells the controller of it, which must not take that for the cluster's end.
    kill([crashed.wrapper.pid, *tagged_processes("HELIOSTAT_HEAD", crashed.cluster_uid)])
    until(lambda: process_start_ticks(crashed.wrapper.pid) is None or None, "end of the wrapper", 20)
    said = kept.command("status", NAME)
    assert said.returncode == 1
    assert "it crashed, and its state is kept" in said.stderr
    assert claimed(crashed) == [False, False, False]
    kept.record = start_cluster(kept.path, options=StartOptions(detach=True), say=print)
    assert kept.record.cluster_uid == crashed.cluster_uid
    assert kept.record.session_name == crashed.session_name
    assert kept.record.address == crashed.address
    # Its dashboard may not listen yet, and another head that starts now must not take its port.
    assert claimed(kept.record) == [True, True, True]
    assert counted(kept) == [str(int(count) + 1), *where]
    goes_on(kept, instances)
    assert {pid for pid in spared if process_start_ticks(pid) is None} == set()


def test_without_it_another_head_at_the_same_address_is_a_stranger(tmp_path: Path) -> None:
    forgetful = CLUSTER.format(name="forgetful", workers=1, idle_timeout_s=600, orphan_timeout_s=60)
    # Longer than a stranger takes to start on a slow machine, or the cluster ends for want of any head.
    forgetful = forgetful.replace("head_timeout_s: 20\n", "head_timeout_s: 120\n")
    with cluster(tmp_path, forgetful, workers=1, port=free_port()) as found:
        until(lambda: found.running() or None, "a worker", 90)
        kill(tagged_processes("HELIOSTAT_HEAD", found.record.cluster_uid))
        port, token = int(found.record.address.rpartition(":")[2]), Path(found.record.token_path)
        until(lambda: is_free(port) or None, "end of the head", 20)
        with real_head("hs-", resources=SMALL, port=port, token=token) as stranger:
            assert stranger.ready.address == found.record.address
            try:
                until(lambda: not found.processes() or None, "end of everything", 90)
            except pytest.fail.Exception as error:
                left = [(pid, _command(pid).replace(b"\0", b" ")[:200]) for pid in found.processes()]
                log = Path(found.record.runtime_dir)
                pytest.fail(f"{error}: {left}, {sorted(log.rglob('*'))[:40]}")
            with GcsReader(stranger.ready.address, stranger.token) as reader:
                assert [one.is_head for one in reader.state().nodes] == [True]
    last = last_event(places_of("forgetful").journal, "down")
    assert last is not None
    assert f"is another session ({stranger.ready.session_name}, ours is " in last.text
