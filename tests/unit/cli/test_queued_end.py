"""The way down of a head that is a Slurm job, and what a dead one has left."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.cli import queued_end
from heliostat.cli.clusters import still_there
from heliostat.cli.head_queue import head_uid
from heliostat.cli.launch_file import LaunchFile
from heliostat.config.record import ClusterRecord, write_record
from heliostat.ports.errors import HeliostatError, Unavailable
from heliostat.providers.slurm.tags import Tag, comment
from tests.unit.cli.conftest import Invoke
from tests.unit.cli.fake_slurm import AWAY, FakeJob
from tests.unit.cli.login_site import Site, at_look, worker


def test_a_crash_between_record_and_submission_is_cleared_away(site: Site) -> None:
    site.up(detach=True, queued_is_enough=True)
    first = site.record
    site.slurm.jobs.clear()
    second = site.up(detach=True, queued_is_enough=True)
    assert first is not None
    assert second.cluster_uid != first.cluster_uid
    assert any("the last run of demo is over" in one for one in site.said)


def test_what_a_dead_heads_workers_left_is_cancelled_by_the_tag(site: Site) -> None:
    at_look(site, 1, site.head_begins)
    site.up()
    mine, other = worker(site), worker(site, uid="another")
    site.slurm.change(state="NODE_FAIL", reason="None")
    site.up(detach=True, queued_is_enough=True)
    assert mine.job_id not in site.slurm.jobs
    assert other.job_id in site.slurm.jobs
    assert "4 workers of demo were cancelled" in site.said
    assert any("NODE_FAIL" in one for one in site.said)


def test_down_asks_the_controller_and_waits_for_the_job(site: Site) -> None:
    at_look(site, 1, site.head_begins)
    site.up()

    def gone() -> None:
        site.slurm.jobs.clear()
        site.places.record.unlink()

    looks = site.slurm.counts["squeue"]
    at_look(site, looks + 4, gone)
    site.down()
    assert site.operations.asked == [("down",)]
    assert site.slurm.cancelled == []
    site.nothing_is_left()


def test_down_waits_for_a_slurm_that_is_away_for_a_moment(site: Site) -> None:
    site.up(detach=True, queued_is_enough=True)
    site.slurm.counts.clear()
    site.slurm.away = {("squeue", number) for number in (1, 3, 4, 6)} | {("scancel", 1)}
    site.down()
    assert site.said.count(f"waiting for Slurm: {AWAY}") == 5
    site.nothing_is_left()


def test_down_says_what_to_do_where_slurm_stays_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.up(detach=True, queued_is_enough=True)
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr(queued_end.time, "monotonic", lambda: float(next(clock)))
    site.slurm.refusals["squeue"] = Unavailable(AWAY)
    with pytest.raises(HeliostatError, match=r"(?s)contact slurm.*`heliostat down demo` again ends them"):
        site.down()
    assert site.record is not None
    site.slurm.refusals.clear()
    site.down()
    site.nothing_is_left()


def test_down_of_one_that_waits_cancels_it(site: Site) -> None:
    site.up(detach=True, queued_is_enough=True)
    site.down()
    assert site.slurm.cancelled == [("100",)]
    site.nothing_is_left()


def test_a_head_that_can_not_be_reached_is_told_by_slurm_then_cancelled(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at_look(site, 1, site.head_begins)
    record = site.up()
    write_record(site.places.record, replace(record, runtime_dir=str(tmp_path / "nowhere")))
    worker(site)
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr(queued_end.time, "monotonic", lambda: float(next(clock)))
    site.down()
    assert site.slurm.cancelled == [("--signal=TERM", "--batch", "100"), ("100",), ("501_[0-3]",)]
    assert "job 100 had to be cancelled" in site.said
    site.nothing_is_left()


def test_down_of_one_whose_job_is_gone_clears_away(site: Site) -> None:
    site.up(detach=True, queued_is_enough=True)
    site.slurm.jobs.clear()
    site.down()
    site.nothing_is_left()


def test_a_heads_job_that_died_hard_can_be_taken_down_from_its_own_host(site: Site, invoke: Invoke) -> None:
    at_look(site, 1, site.head_begins)
    record = site.up()
    worker(site)
    site.slurm.jobs.pop(100)
    # No wrapper has taken its record with it, and none lives.
    write_record(site.places.record, replace(record, runtime_dir="/nowhere"))
    assert not still_there(record)
    assert invoke("down", "demo").exit_code == 0
    site.nothing_is_left()


def test_the_launch_file_goes_with_the_record(site: Site) -> None:
    record = site.up(detach=True, queued_is_enough=True)
    LaunchFile([], {}, "", "", record.cluster_uid, "", "").write(site.places.folder)
    site.down()
    site.nothing_is_left()


def written_elsewhere(site: Site, *, age_s: float = 1.0) -> ClusterRecord:
    """Leave the record of an `up` on another host that has not submitted its job yet."""
    record = site.up(detach=True, queued_is_enough=True)
    site.slurm.jobs.clear()
    site.slurm.counts.clear()
    elsewhere = replace(record, owner="bob@login2", created_at_s=time.time() - age_s)
    write_record(site.places.record, elsewhere)
    return elsewhere


def test_a_job_that_is_being_submitted_elsewhere_is_waited_for(site: Site) -> None:
    record = written_elsewhere(site)
    tag = Tag("demo", head_uid(record.cluster_uid), "bob@login2", "head", "front", "s", 1, together=True)

    def submitted() -> None:
        site.slurm.jobs[7] = FakeJob(7, comment(tag))

    at_look(site, 3, submitted)
    found = site.up(detach=True, queued_is_enough=True)
    assert found.cluster_uid == record.cluster_uid
    assert found.job is not None
    assert found.job.job_id == "7"
    assert site.slurm.counts["sbatch"] == 0
    assert "waiting for bob on login2, who is about to submit the head of demo" in site.said


def test_one_that_was_never_submitted_elsewhere_is_cleared_away(site: Site) -> None:
    record = written_elsewhere(site, age_s=queued_end.SUBMITTING_S + 1)
    found = site.up(detach=True, queued_is_enough=True)
    assert found.cluster_uid != record.cluster_uid
    assert site.slurm.counts["sbatch"] == 1


def test_one_that_was_refused_elsewhere_is_not_waited_for(site: Site) -> None:
    record = written_elsewhere(site)
    at_look(site, 2, site.places.record.unlink)
    found = site.up(detach=True, queued_is_enough=True)
    assert found.cluster_uid != record.cluster_uid
