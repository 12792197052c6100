"""Jobs in Slurm that are ours and astray are cancelled; those of clusters unknown here are only told."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest

from heliostat.cli import leftovers
from heliostat.cli.doctor import jobs
from heliostat.cli.head_queue import HeadQueue
from heliostat.cli.successor import SuccessorPlaces
from heliostat.config.record import HeadJob, write_record
from heliostat.providers.slurm.runner import Output
from heliostat.providers.slurm.tags import Tag, comment
from tests.unit.cli.doctor.conftest import Doctor, Place
from tests.unit.cli.fake_slurm import FakeJob, FakeSlurm

UID, OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm()

    for module in (jobs, leftovers):
        monkeypatch.setattr(module, "brief_runner", lambda _: nullcontext(fake))
    monkeypatch.setattr(jobs, "LocalRunner", lambda _: fake)
    monkeypatch.setattr(jobs, "queue_at", lambda options: HeadQueue(fake, options))
    monkeypatch.setattr(jobs.shutil, "which", lambda _: "/usr/bin/squeue")
    return fake


def add(slurm: FakeSlurm, job_id: int, uid: str, *, state: str = "RUNNING", name: str = "demo") -> None:
    tag = Tag(name, uid, "ada@login1", f"l{job_id}", "cpu", "s", 2)
    slurm.jobs[job_id] = FakeJob(job_id, comment(tag), state=state, tasks="0-1")


def test_workers_of_a_cluster_that_is_gone_are_cancelled(
    place: Place, doctor: Doctor, slurm: FakeSlurm
) -> None:
    place.record("demo", UID)
    add(slurm, 7, UID)
    add(slurm, 8, UID, state="COMPLETED")
    code, found = doctor()
    assert (code, found[0]["kind"], found[0]["what"]) == (1, "job", "2 in Slurm: 7_0, 7_1")
    assert slurm.cancelled == []
    assert doctor("--fix")[0] == 0
    assert list(slurm.jobs) == [8]


def test_jobs_of_clusters_that_nothing_here_tells_of_are_told(
    place: Place, doctor: Doctor, slurm: FakeSlurm
) -> None:
    place.record("far", OTHER, host="another-host")
    add(slurm, 7, UID, name="lost")
    add(slurm, 9, f"{UID}.head", name="lost")
    add(slurm, 8, OTHER, name="far")
    code, (found,) = doctor("--fix")
    assert (code, found["cluster"], found["certain"]) == (1, "lost (01234567)", False)
    assert found["hint"] == "scancel 7 9"
    assert "ada@login1" in found["why"]
    assert slurm.cancelled == []


def test_a_tag_in_the_jobs_name_has_no_owner(place: Place, doctor: Doctor, slurm: FakeSlurm) -> None:
    slurm.jobs[7] = FakeJob(7, comment(Tag("", UID, "", "la", "cpu", "s", 2)), state="RUNNING", tasks="0-1")
    _, (found,) = doctor()
    assert (found["cluster"], found["why"]) == ("(01234567)", "no record of it is here")


def test_the_record_of_a_head_whose_job_is_over(
    place: Place, doctor: Doctor, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = place.record("demo", UID, host="node7", job=HeadJob("9", "/x/head.log"))
    cleared: list[str] = []
    monkeypatch.setattr(jobs, "waiting_or_gone", lambda one, **_: cleared.append(one.cluster_name))
    code, (found,) = doctor("--fix")
    assert (code, found["kind"], cleared) == (0, "record", ["demo"])
    assert found["why"] == "the job of its head is over"
    assert record.job is not None


def test_the_next_heads_record_goes_when_its_job_is_over_and_the_present_clusters_stays(
    place: Place, doctor: Doctor, slurm: FakeSlurm
) -> None:
    add(slurm, 9, f"{UID}.head")
    present = place.record("demo", UID, host="node7", job=HeadJob("9", "/x/head.log"))
    after = SuccessorPlaces(place.state / "demo")
    write_record(
        after.record, replace(present, cluster_uid=OTHER, address="", job=HeadJob("10", "/x/head.log"))
    )
    after.config.write_text("")
    code, (found,) = doctor("--fix")
    assert (code, found["kind"], found["what"]) == (0, "record", str(after.record))
    assert found["why"] == "the job of its next head is over"
    assert doctor() == (0, [])
    assert not after.config.exists()
    assert (place.state / "demo" / "cluster.json").exists()


def test_where_slurm_is_silent_the_record_stays(place: Place, doctor: Doctor, slurm: FakeSlurm) -> None:
    """It alone tells whose the jobs are that may be there."""
    place.record("demo", UID)
    slurm.refusals["squeue"] = Output(1, "", "slurm_load_jobs error: Unable to contact slurm controller")
    code, found = doctor("--fix")
    assert (code, [(one["kind"], one["fixed"]) for one in found]) == (1, [("job", False), ("record", False)])
    assert "can't be asked" in found[0]["what"]
    assert (place.state / "demo" / "cluster.json").exists()
    del slurm.refusals["squeue"]
    assert doctor("--fix")[0] == 0


@pytest.mark.parametrize("config", [None, "cluster_name: [", "max_wrokers: 3"])
def test_a_record_without_a_file_that_can_be_read_goes_all_the_same(
    place: Place, doctor: Doctor, slurm: FakeSlurm, config: str | None
) -> None:
    place.record("demo", UID)
    path = place.state / "demo" / "config.yaml"
    path.unlink() if config is None else path.write_text(config)
    add(slurm, 7, UID)
    code, found = doctor("--fix")
    assert (code, [(one["kind"], one["fixed"]) for one in found]) == (0, [("job", True), ("record", True)])
    assert slurm.jobs == {}


@pytest.mark.parametrize("config", [None, "cluster_name: ["])
def test_nor_does_the_record_of_a_head_that_was_a_job_stay_without_its_file(
    place: Place, doctor: Doctor, slurm: FakeSlurm, config: str | None
) -> None:
    place.record("demo", UID, host="node7", job=HeadJob("9", "/x/head.log"))
    path = place.state / "demo" / "config.yaml"
    path.unlink() if config is None else path.write_text(config)
    add(slurm, 7, UID)
    add(slurm, 9, f"{UID}.head")
    assert doctor("--fix") == (0, [])
    del slurm.jobs[9]
    code, (found,) = doctor("--fix")
    assert (code, found["kind"], found["fixed"]) == (0, "record", True)
    assert slurm.jobs == {}
    assert not (place.state / "demo" / "cluster.json").exists()


def test_where_nothing_tells_of_its_heads_job_the_record_stays(place: Place, doctor: Doctor) -> None:
    place.record("demo", UID, host="node7", job=HeadJob("9", "/x/head.log"))
    (place.state / "demo" / "config.yaml").unlink()
    code, (found,) = doctor("--fix")
    assert (code, found["kind"], found["fixed"]) == (1, "record", False)
    assert "where Slurm's commands are" in found["hint"]


def test_where_there_is_no_slurm_either_nothing_is_asked(
    place: Place, doctor: Doctor, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.record("demo", UID)
    (place.state / "demo" / "config.yaml").unlink()
    monkeypatch.setattr(jobs.shutil, "which", lambda _: None)
    code, (found,) = doctor("--fix")
    assert (code, found["kind"], found["fixed"]) == (0, "record", True)
    assert slurm.counts == {}


def test_nor_does_it_go_where_the_jobs_do_not(
    place: Place, doctor: Doctor, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "PATIENCE_S", 0.0)
    place.record("demo", UID)
    add(slurm, 7, UID)
    slurm.refusals["scancel"] = Output(1, "", "scancel: error: Unable to contact slurm controller")
    code, found = doctor("--fix")
    assert (code, [one["fixed"] for one in found]) == (1, [False, False])
    assert (place.state / "demo" / "cluster.json").exists()
