"""A login node for tests of heads that are Slurm jobs: a Slurm in memory, and a controller that answers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from heliostat.cli import queued_end, queued_start, start
from heliostat.cli.preparing import StartOptions
from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord, read_record, write_record
from heliostat.model.node_type import ClusterSpec, NodeType, Policy
from heliostat.model.resources import Resources
from heliostat.providers.slurm.tags import Tag, comment
from tests.unit.api.fakes import FakeOperations
from tests.unit.cli.fake_slurm import FakeJob, FakeSlurm


@dataclass
class Site:
    """A login node: a state folder, a Slurm, and a controller that answers once its head is up."""

    path: Path
    places: StatePlaces
    slurm: FakeSlurm
    runtime: Path
    operations: FakeOperations
    said: list[str] = field(default_factory=list)

    @property
    def spec(self) -> ClusterSpec:
        return ClusterSpec(
            name="demo",
            policy=Policy(node_types=(), max_workers=2, idle_timeout_s=60.0),
            head_type=NodeType(
                "front", "slurm", Resources(), shape_id="s", options={"time_limit": "04:00:00"}
            ),
            backends={"slurm": {"partition": "main"}},
        )

    @property
    def record(self) -> ClusterRecord | None:
        return read_record(self.places.record)

    def up(self, **options: object) -> ClusterRecord:
        return self.start(waiting=start._refuse_if_running(self.places, self.said.append), **options)

    def start(self, *, waiting: ClusterRecord | None, **options: object) -> ClusterRecord:
        return queued_start.start(
            self.path,
            self.spec,
            places=self.places,
            options=StartOptions(**options),  # type: ignore[arg-type]
            waiting=waiting,
            say=self.said.append,
        )

    def down(self) -> None:
        assert self.record is not None
        queued_end.stop(self.record, say=self.said.append, timeout_s=5.0)

    def successor(self) -> ClusterRecord:
        return queued_start.submit_successor(
            self.path, self.spec, places=self.places, options=StartOptions(), say=self.said.append
        )

    def head_begins(self, *, host: str = "") -> None:
        """Do what the job does on its node: write down where the head is, and start the controller."""
        record = self.record
        assert record is not None
        assert record.job is not None
        self.slurm.change(state="RUNNING", reason="None")
        job_id = next(iter(self.slurm.jobs))
        write_record(
            self.places.record,
            replace(
                record,
                host=host or socket.gethostname(),
                runtime_dir=str(self.runtime),
                address="10.1.4.2:6379",
                session_name="session_1",
                job=replace(record.job, job_id=str(job_id)),
            ),
        )

    def nothing_is_left(self) -> None:
        assert [job for job in self.slurm.jobs.values() if job.state in ("PENDING", "RUNNING")] == []
        left = {one.name for one in self.places.folder.iterdir()} - {"journal.db", "config.yaml", "logs"}
        assert left == set()


def at_look(site: Site, number: int, act: Callable[[], None]) -> None:
    def on_look(count: int) -> None:
        if count == number:
            act()

    site.slurm.on_look = on_look


def worker(site: Site, *, uid: str = "") -> FakeJob:
    record = site.record
    assert record is not None
    tag = Tag("demo", uid or record.cluster_uid, "ada@here", "lab12345", "cpu", "s", 4)
    job = FakeJob(500 + len(site.slurm.jobs), comment(tag), tasks="0-3", state="RUNNING")
    site.slurm.jobs[job.job_id] = job
    return job
