"""A head that is a Slurm job, from the login node: asked for, waited for, and all cut short."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heliostat.cli import queued_start, queued_wait
from heliostat.cli.attachment import attached_file, is_attached, is_detached
from heliostat.cli.head_queue import HEAD_LAUNCH_ID, queue_of
from heliostat.cli.preparing import AlreadyRunning
from heliostat.cli.successor import SuccessorPlaces
from heliostat.cli.system import SystemClock
from heliostat.config.record import ClusterRecord, HeadJob, read_record, write_record
from heliostat.ports.errors import AuthenticationFailed, HeliostatError, InvalidRequest, Unavailable
from heliostat.providers.slurm.runner import Output
from heliostat.providers.slurm.script import Submission
from heliostat.providers.slurm.tags import parse_comment
from tests.unit.cli.login_site import Site, at_look


def test_it_queues_shows_why_and_returns_when_the_cluster_runs(site: Site) -> None:
    def on_look(count: int) -> None:
        site.slurm.change(start=f"{time.time() + 60:.0f}")
        if count == 3:
            site.head_begins()

    site.slurm.on_look = on_look
    record = site.up()
    assert record.session_name == "session_1"
    assert record.job is not None
    assert record.job.job_id == "100"
    (waits,) = {one for one in site.said if one.startswith("waiting for the head")}
    assert waits.startswith("waiting for the head: Slurm job 100, Priority: ")
    assert ", expected about " in waits
    assert site.said[-1] == "the head runs, session session_1"


def test_the_job_has_our_tag_its_script_and_no_secret(site: Site) -> None:
    site.up(detach=True, queued_is_enough=True, port=7000, idle_after_s=60.0)
    (job,) = site.slurm.jobs.values()
    record = site.record
    assert record is not None
    tag = parse_comment(job.comment)
    assert tag is not None
    assert (tag.launch_id, tag.node_type) == (HEAD_LAUNCH_ID, "front")
    # A provider lists what has the cluster's own uid: the head is no worker of it.
    assert tag.cluster_uid == f"{record.cluster_uid}.head"
    assert {"--partition=main", "--time=240", "--no-requeue"} <= set(job.argv)
    assert (
        f"-m heliostat.cli.head_job {site.places.folder} {record.cluster_uid} --port=7000 --idle-after=60"
        in job.script
    )
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text()
    assert token not in job.script + " ".join(job.argv)


def test_detached_it_returns_at_once_and_a_later_up_takes_it_up(site: Site) -> None:
    record = site.up(detach=True, queued_is_enough=True)
    assert (record.address, record.phase) == ("", "queued")
    assert site.slurm.counts == {"sbatch": 1, "squeue": 1}
    at_look(site, 3, site.head_begins)
    again = site.up()
    assert again.cluster_uid == record.cluster_uid
    assert again.address == "10.1.4.2:6379"
    assert site.slurm.counts["sbatch"] == 1
    # It was detached when it was asked for, so it does not end with who waits for it now.
    assert not is_attached(site.places)


def test_it_waits_a_while_and_leaves_what_has_not_begun(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(0, 1000, 7))
    clock = replace(queued_wait.STANDARD, sleep=lambda _: None, monotonic_s=lambda: float(next(times)))
    defaults = {**queued_wait.wait_until_running.__kwdefaults__, "clock": clock}  # type: ignore[dict-item]
    monkeypatch.setattr(queued_wait.wait_until_running, "__kwdefaults__", defaults)
    record = site.up(detach=True, queued_is_enough=True, queue_wait_s=30.0)
    assert (record.address, record.phase) == ("", "queued")
    assert "waiting for the head: Slurm job 100, Priority: jobs with a higher priority go first" in site.said
    assert site.slurm.cancelled == []
    at_look(site, site.slurm.counts["squeue"] + 2, site.head_begins)
    assert site.up(detach=True, queued_is_enough=True, queue_wait_s=30.0).address == "10.1.4.2:6379"
    assert site.slurm.counts["sbatch"] == 1


def test_ctrl_c_in_a_bounded_wait_leaves_the_head_in_the_queue(site: Site) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    at_look(site, 2, interrupt)
    with pytest.raises(HeliostatError, match="the head of demo is still asked for"):
        site.up(detach=True, queued_is_enough=True, queue_wait_s=30.0)
    assert site.slurm.cancelled == []
    assert site.record is not None


def test_what_a_later_up_asks_in_vain_is_said(site: Site) -> None:
    site.up(detach=True, queued_is_enough=True)
    site.up(detach=True, queued_is_enough=True)
    assert [one for one in site.said if "ask anew" in one] == []
    site.path.write_text("cluster_name: demo\nmax_workers: 9\n")
    site.up(detach=True, queued_is_enough=True, workers=2, port=7000)
    said = [one for one in site.said if "ask anew" in one]
    assert said[0].startswith(f"{site.path} has changed, but the head waits as it was asked for")
    assert said[1].startswith("--workers, --port: only heard when the head is asked for")


def test_one_that_runs_is_not_started_twice(site: Site) -> None:
    at_look(site, 1, site.head_begins)
    site.up()
    with pytest.raises(AlreadyRunning, match=r"demo runs already at 10\.1\.4\.2:6379"):
        site.up()


def test_a_refusal_leaves_nothing(site: Site) -> None:
    words = "sbatch: error: invalid partition specified: nope\nsbatch: error: Batch job submission failed: "
    site.slurm.refusals["sbatch"] = Output(1, "", words + "Invalid partition name specified")
    with pytest.raises(InvalidRequest, match="partition"):
        site.up()
    site.nothing_is_left()


def test_a_job_that_the_site_leaves_without_a_tag_is_not_kept(site: Site) -> None:
    at_look(site, 1, lambda: site.slurm.change(comment="project 7"))
    site.slurm.away = {("scancel", 1)}
    with pytest.raises(InvalidRequest, match=r"the head's job 100 was cancelled: this site changes the name"):
        site.up(detach=True, queued_is_enough=True)
    assert site.slurm.cancelled == [("100",), ("100",)]
    site.nothing_is_left()


def test_a_slurm_that_can_not_say_so_now_is_no_reason_to_refuse(site: Site) -> None:
    site.slurm.away = {("squeue", 1)}
    record = site.up(detach=True, queued_is_enough=True)
    assert record.job is not None
    assert record.job.job_id == "100"


def test_a_lost_answer_is_found_by_the_tag(site: Site) -> None:
    site.slurm.refusals["sbatch"] = Unavailable("sbatch did not answer within 30 s: lost")
    at_look(site, 2, site.head_begins)
    record = site.up()
    assert record.job is not None
    assert record.job.job_id == "100"


def test_an_answer_that_never_came_leaves_nothing(site: Site) -> None:
    site.slurm.refusals["sbatch"] = Unavailable("sbatch did not answer within 30 s")
    with pytest.raises(Unavailable):
        site.up()
    site.nothing_is_left()


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("look", [1, 3])
def test_ctrl_c_while_it_waits_cancels_the_job(site: Site, look: int) -> None:
    at_look(site, look, interrupt)
    with pytest.raises(KeyboardInterrupt):
        site.up()
    assert site.slurm.cancelled == [("100",)]
    site.nothing_is_left()


def test_ctrl_c_while_it_is_being_submitted_cancels_what_slurm_took(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(argv: tuple[str, ...], stdin: str) -> Output:
        site.slurm.add(argv, stdin)
        raise KeyboardInterrupt

    monkeypatch.setattr(site.slurm, "_sbatch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        site.up()
    site.nothing_is_left()


def test_ctrl_c_leaves_a_job_that_an_earlier_up_asked_for(site: Site) -> None:
    site.up(detach=True, queued_is_enough=True)
    at_look(site, 3, interrupt)
    with pytest.raises(HeliostatError, match="`heliostat down demo` ends it"):
        site.up()
    assert site.slurm.cancelled == []
    assert site.record is not None


def test_a_job_that_fails_shows_its_last_lines(site: Site) -> None:
    def fail() -> None:
        (site.places.logs / "head.slurm.log").write_text("module: command not found\n")
        site.slurm.change(state="FAILED", reason="NonZeroExitCode")

    at_look(site, 2, fail)
    with pytest.raises(HeliostatError, match=r"(?s)NonZeroExitCode.*  module: command not found"):
        site.up()
    site.nothing_is_left()


def test_a_job_that_has_vanished_failed(site: Site) -> None:
    at_look(site, 2, site.slurm.jobs.clear)
    with pytest.raises(HeliostatError, match="the head did not come up"):
        site.up()
    site.nothing_is_left()


def test_a_job_whose_head_could_not_be_planned_failed(site: Site) -> None:
    def plan_fails() -> None:
        (site.places.logs / "head.slurm.log").write_text("head: no folder for Ray's temp dir\n")
        site.places.record.unlink()
        site.slurm.jobs.clear()

    at_look(site, 2, plan_fails)
    with pytest.raises(HeliostatError, match="no folder for Ray's temp dir"):
        site.up()
    site.nothing_is_left()


def test_a_reason_that_never_passes_is_a_failure_and_the_job_is_cancelled(site: Site) -> None:
    at_look(site, 2, lambda: site.slurm.change(reason="PartitionTimeLimit"))
    with pytest.raises(HeliostatError, match="PartitionTimeLimit: time_limit is above the partition's"):
        site.up()
    site.nothing_is_left()


def test_a_slurm_that_is_away_is_waited_for(site: Site) -> None:
    def away(count: int) -> None:
        site.slurm.refusals.pop("squeue", None)
        if count == 2:
            site.slurm.refusals["squeue"] = Unavailable("squeue did not answer within 30 s")
        if count == 4:
            site.head_begins()

    site.slurm.on_look = away
    assert site.up().session_name == "session_1"
    assert "waiting for the head: squeue did not answer within 30 s" in site.said


def test_a_slurm_that_does_not_know_us_is_not(site: Site) -> None:
    at_look(site, 2, lambda: site.slurm.refusals.update(squeue=AuthenticationFailed("who are you?")))
    with pytest.raises(HeliostatError, match=r"(?s)who are you\?.*`heliostat down demo` again ends them"):
        site.up()


def test_a_successor_queues_behind_the_head(site: Site) -> None:
    at_look(site, 1, site.head_begins)
    first = site.up()
    second = site.successor()
    assert second.cluster_uid != first.cluster_uid
    assert "--dependency=afterany:100" in site.slurm.jobs[101].argv
    assert site.record is not None
    assert site.record.cluster_uid == first.cluster_uid
    with pytest.raises(HeliostatError, match="demo has a successor already: Slurm job 101"):
        site.successor()
    site.slurm.on_cancel = lambda argv: None
    site.slurm.jobs.pop(100)
    site.down()
    assert not SuccessorPlaces(site.places.folder).record.exists()
    site.nothing_is_left()


class TestTwoThatAskForASuccessor:
    @pytest.fixture
    def other(self, site: Site) -> ClusterRecord:
        """Return what another `up --successor` writes down before it submits."""
        at_look(site, 1, site.head_begins)
        first = site.up()
        now_s = SystemClock().now_s()
        return replace(first, cluster_uid="other", owner="bob@login2", created_at_s=now_s)

    def refused(self, site: Site, words: str) -> None:
        before = site.slurm.counts["sbatch"]
        with pytest.raises(HeliostatError, match=words):
            site.successor()
        assert site.slurm.counts["sbatch"] == before

    def test_one_that_has_not_submitted_yet_comes_first(self, site: Site, other: ClusterRecord) -> None:
        write_record(SuccessorPlaces(site.places.folder).record, other)
        self.refused(
            site, "bob@login2 has just asked for the next head of demo, and Slurm does not have it yet"
        )

    def test_of_two_at_once_one_gets_through(
        self, site: Site, other: ClusterRecord, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, submission = SuccessorPlaces(site.places.folder).record, queued_start.head_submission

        def meanwhile(*given: Any) -> Submission:
            write_record(path, other)
            return submission(*given)

        monkeypatch.setattr(queued_start, "head_submission", meanwhile)
        self.refused(site, "bob@login2 has just asked for the next head of demo: `heliostat status demo`")
        assert read_record(path) == other

    def test_one_of_which_nothing_came_is_in_nobodys_way(self, site: Site, other: ClusterRecord) -> None:
        path = SuccessorPlaces(site.places.folder).record
        write_record(path, replace(other, created_at_s=other.created_at_s - 2 * queued_start.SUBMITTING_S))
        assert read_record(path) != site.successor()
        assert site.slurm.counts["sbatch"] == 2


def test_a_successor_needs_a_head_that_is_a_job(site: Site) -> None:
    with pytest.raises(HeliostatError, match="has no head that is a Slurm job now"):
        site.successor()
    site.up(detach=True, queued_is_enough=True)
    site.slurm.jobs.clear()
    with pytest.raises(HeliostatError, match="`heliostat up` starts the next one"):
        site.successor()


def test_a_head_on_another_backend_is_refused_with_what_is_allowed(site: Site) -> None:
    spec = replace(site.spec, head_type=replace(site.spec.head_type, backend="kubernetes"))
    with pytest.raises(
        HeliostatError, match=r"on the backend kubernetes; a head is allowed on local .* slurm"
    ):
        queued_start.refuse_other_backends(spec)


def test_a_head_behind_ssh_is_started_where_its_folder_is(
    monkeypatch: pytest.MonkeyPatch, site: Site
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    spec = replace(site.spec, backends={"slurm": {"ssh": "login.example.org"}})
    with pytest.raises(HeliostatError, match=r"log in to login\.example\.org and run this there"):
        queue_of(spec)


def test_of_two_hosts_one_starts_it_and_the_other_says_who_has_it(site: Site) -> None:
    site.places.folder.mkdir(mode=0o700)
    other = ClusterRecord(
        "demo", "other", "bob@login2", 1.0, "f", "", "", "t", "2", "3", job=HeadJob("7", "l")
    )
    write_record(site.places.record, other)
    site.places.config.write_text("of bob's")
    with pytest.raises(HeliostatError, match="bob@login2 has just started demo: `heliostat status demo`"):
        site.start(waiting=None, workers=1)
    assert site.record == other
    assert site.places.config.read_text() == "of bob's"
    assert not site.places.journal.exists()
    assert site.slurm.asked == []


def test_one_whose_files_can_not_be_written_is_taken_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queued_start, "dump_for_state", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        site.up()
    assert site.record is None
    assert site.slurm.asked == []


class Said(list[str]):
    """What was said, with something that happens at that moment."""

    def __init__(self, heard: Callable[[str], None]) -> None:
        super().__init__()
        self._heard = heard

    def append(self, text: str) -> None:
        super().append(text)
        self._heard(text)


def orphan(site: Site) -> None:
    """Leave what a foreground `up` leaves that was killed while its head waited in the queue."""
    site.up(queued_is_enough=True)
    assert is_attached(site.places)
    attached_file(site.places).write_text(f"{socket.gethostname()} 1")


def test_a_head_whose_up_was_killed_belongs_to_the_next_one(site: Site) -> None:
    orphan(site)
    at_look(site, 3, site.head_begins)
    record = site.up()
    assert record.session_name
    assert is_attached(site.places)
    assert not is_detached(record)
    assert "it is gone; demo ends with this one now" in site.said


def test_ctrl_c_ends_a_head_that_was_taken_over(site: Site) -> None:
    orphan(site)
    at_look(site, 3, interrupt)
    with pytest.raises(KeyboardInterrupt):
        site.up()
    assert site.slurm.cancelled == [("100",)]
    site.nothing_is_left()


def test_ctrl_c_in_the_moment_of_taking_over_ends_it_too(site: Site) -> None:
    orphan(site)

    def say(text: str) -> None:
        if "ends with this one now" in text:
            raise KeyboardInterrupt

    site.said = Said(say)
    with pytest.raises(KeyboardInterrupt):
        site.up()
    site.nothing_is_left()


def test_a_detached_up_lets_it_go_on_alone(site: Site) -> None:
    orphan(site)
    record = site.up(detach=True, queued_is_enough=True)
    assert is_detached(record)
    assert "it is gone; demo goes on without it" in site.said


def test_a_head_with_a_living_up_on_another_host_is_left_to_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan(site)
    monkeypatch.setattr(queued_start, "holder_elsewhere", lambda places: "login2")
    with pytest.raises(HeliostatError, match="`heliostat up` on login2 waits for the head of demo"):
        site.up()
    assert site.slurm.cancelled == []
    assert site.record is not None


def test_one_that_lost_its_place_cancels_its_job(site: Site) -> None:
    def replaced() -> None:
        assert site.record is not None
        other = replace(site.record, cluster_uid="other", owner="bob@login2")
        write_record(site.places.record, other)

    at_look(site, 2, replaced)
    with pytest.raises(HeliostatError, match="did not come up: bob@login2 has started demo anew"):
        site.up()
    assert site.slurm.cancelled == [("100",)]
    assert site.record is not None
    assert is_attached(site.places), "that is the other's now"
