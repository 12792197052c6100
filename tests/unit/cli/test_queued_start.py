"""A head that is a Slurm job, from the login node: asked for, waited for, taken down, and all cut short."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from heliostat.cli import queued_end, queued_head, queued_start, start
from heliostat.cli.clusters import still_there
from heliostat.cli.head_queue import HEAD_LAUNCH_ID, HeadQueue, queue_of
from heliostat.cli.launch_file import LaunchFile
from heliostat.cli.preparing import AlreadyRunning, StartOptions
from heliostat.cli.queued_head import clock_time, waiting_words
from heliostat.cli.successor import SuccessorPlaces
from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord, HeadJob, read_record, write_record
from heliostat.model.node_type import ClusterSpec, NodeType, Policy
from heliostat.model.resources import Resources
from heliostat.ports.errors import AuthenticationFailed, HeliostatError, InvalidRequest, Unavailable
from heliostat.providers.slurm.options import SlurmOptions
from heliostat.providers.slurm.runner import Output
from heliostat.providers.slurm.tags import Tag, comment, parse_comment
from tests.unit.api.fakes import FakeOperations
from tests.unit.cli.conftest import Invoke
from tests.unit.cli.fake_slurm import AWAY, FakeJob, FakeSlurm

LOOKS_AT_MOST = 40


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
        waiting = start._refuse_if_running(self.places, self.said.append)
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


@pytest.fixture
def site(
    state: Path,
    served: tuple[FakeOperations, Path],
    operations: FakeOperations,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Site:
    slurm = FakeSlurm()
    queue = HeadQueue(slurm, SlurmOptions())
    path = tmp_path / "cluster.yaml"
    path.write_text("cluster_name: demo\n")
    made = Site(path, StatePlaces(state / "demo"), slurm, served[1], operations)
    looks: list[float] = []

    def no_sleep(seconds: float) -> None:
        looks.append(seconds)
        assert len(looks) < LOOKS_AT_MOST, "it waits for ever"

    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    for module in (queued_start, queued_end, queued_head):
        monkeypatch.setattr(module, "queue_of", lambda spec: queue)
    for module in (queued_end, queued_head):
        monkeypatch.setattr(module, "applied_spec", lambda record, places: made.spec)
    monkeypatch.setattr(queued_end.time, "sleep", no_sleep)
    monkeypatch.setattr(queued_start, "LOOK_S", (0.0,))
    monkeypatch.setattr(queued_start, "STANDARD", replace(queued_start.STANDARD, sleep=no_sleep))
    monkeypatch.setattr(queued_start.wait_until_running, "__kwdefaults__", {"clock": queued_start.STANDARD})
    monkeypatch.setattr(queued_start, "keep_touching", lambda path: path.touch())
    return made


def at_look(site: Site, number: int, act: Callable[[], None]) -> None:
    def on_look(count: int) -> None:
        if count == number:
            act()

    site.slurm.on_look = on_look


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
    assert site.slurm.counts == {"sbatch": 1}
    at_look(site, 3, site.head_begins)
    again = site.up()
    assert again.cluster_uid == record.cluster_uid
    assert again.address == "10.1.4.2:6379"
    assert site.slurm.counts["sbatch"] == 1
    # It was detached when it was asked for, so it does not end with who waits for it now.
    assert not queued_head.attached_file(site.places).exists()


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
    with pytest.raises(HeliostatError, match="`heliostat down demo` cancels it"):
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


def test_a_crash_between_record_and_submission_is_cleared_away(site: Site) -> None:
    site.up(detach=True, queued_is_enough=True)
    first = site.record
    site.slurm.jobs.clear()
    second = site.up(detach=True, queued_is_enough=True)
    assert first is not None
    assert second.cluster_uid != first.cluster_uid
    assert any("the last run of demo is over" in one for one in site.said)


def worker(site: Site, *, uid: str = "") -> FakeJob:
    record = site.record
    assert record is not None
    tag = Tag("demo", uid or record.cluster_uid, "ada@here", "lab12345", "cpu", "s", 4)
    job = FakeJob(500 + len(site.slurm.jobs), comment(tag), tasks="0-3", state="RUNNING")
    site.slurm.jobs[job.job_id] = job
    return job


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


def test_status_and_list_show_the_queue(site: Site, invoke: Invoke) -> None:
    site.up(detach=True, queued_is_enough=True)
    assert "demo: waiting for the head: Slurm job 100, Priority" in invoke("status", "demo").output
    assert '"phase": "queued"' in invoke("status", "--json").output
    assert "queued" in invoke("list").output
    for command in ("explain", "events", "cost"):
        result = invoke(command)
        assert result.exit_code == 1
        assert "waits in Slurm's queue: `heliostat status demo` shows it" in result.stderr
    for command in ("env", "shell"):
        result = invoke(command, "demo")
        assert result.exit_code == 1
        assert "the head of demo has not started" in result.stderr
    site.slurm.jobs.clear()
    assert "its job is over; `heliostat down demo` clears it away" in invoke("status").stderr


def test_a_view_ends_when_slurm_has_no_such_job_any_more(site: Site) -> None:
    at_look(site, 1, site.head_begins)
    record = site.up()
    here = replace(record, host="n17")
    write_record(site.places.record, here)
    assert still_there(here)
    site.slurm.refusals["squeue"] = Unavailable("away")
    assert still_there(here), "what can't be asked is taken to be there"
    site.slurm.refusals.clear()
    site.slurm.jobs.clear()
    assert not still_there(here)


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


def test_words_for_a_time_have_a_day_if_it_is_not_today() -> None:
    noon = time.mktime((2026, 11, 21, 12, 0, 0, 0, 0, -1))
    assert clock_time(noon + 7500, noon) == "14:05"
    assert clock_time(noon + 86400, noon) == "2026-11-22 12:00"


def test_words_for_a_job_that_has_begun(site: Site) -> None:
    site.up(detach=True, queued_is_enough=True)
    site.slurm.change(state="RUNNING")
    record = site.record
    assert record is not None
    look = queued_head.head_look(record)
    assert look is not None
    assert waiting_words(look, now_s=0.0) == "the head's job 100 has begun on n1: setting up"


def test_the_launch_file_goes_with_the_record(site: Site) -> None:
    record = site.up(detach=True, queued_is_enough=True)
    LaunchFile([], {}, "", "", record.cluster_uid, "", "").write(site.places.folder)
    site.down()
    site.nothing_is_left()


def test_another_clusters_record_is_not_taken_for_ours(site: Site) -> None:
    site.places.folder.mkdir(mode=0o700)
    other = ClusterRecord("demo", "other", "a@b", 1.0, "f", "", "", "t", "2", "3", job=HeadJob("7", "l"))
    write_record(site.places.record, other)
    with pytest.raises(HeliostatError, match="under way on another host"):
        queued_start.start(
            site.path,
            site.spec,
            places=site.places,
            options=StartOptions(),
            waiting=None,
            say=site.said.append,
        )
    assert site.record == other
    assert site.slurm.asked == []
