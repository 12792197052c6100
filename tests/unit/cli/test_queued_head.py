"""What people see of a head that is a Slurm job."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.cli import queued_head
from heliostat.cli.clusters import still_there
from heliostat.cli.commands import status
from heliostat.cli.queued_head import clock_time, waiting_words
from heliostat.config.record import write_record
from heliostat.ports.errors import Unavailable
from tests.unit.cli.conftest import Invoke
from tests.unit.cli.fake_slurm import AWAY
from tests.unit.cli.login_site import Site, at_look


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
    site.slurm.change(state="RUNNING")
    assert "starting" in invoke("list").output
    site.slurm.refusals["squeue"] = Unavailable("away")
    assert "queued" in invoke("list").output


def test_a_head_that_never_came_up_is_there_until_it_is_cleared_away(site: Site, invoke: Invoke) -> None:
    record = site.up(detach=True, queued_is_enough=True)
    assert record.job is not None
    Path(record.job.log).write_text("head: provider: is missing\n")
    site.slurm.change(state="FAILED", reason="NonZeroExitCode")
    said = invoke("status").stderr.splitlines()
    assert "its job is over (NonZeroExitCode" in said[0]
    assert said[0].endswith("; `heliostat down demo` clears it away")
    assert said[-1] == "heliostat:   head: provider: is missing"
    assert "failed" in invoke("list").output
    assert invoke("down", "demo").exit_code == 0
    site.nothing_is_left()


def test_a_head_that_died_is_gone_and_that_is_said(site: Site, invoke: Invoke, tmp_path: Path) -> None:
    at_look(site, 1, site.head_begins)
    record = site.up()
    write_record(site.places.record, replace(record, runtime_dir=str(tmp_path)))
    assert "no controller of demo answers here" in invoke("status", "demo").stderr
    assert "no answer" in invoke("list").output
    site.slurm.change(state="NODE_FAIL", reason="None")
    said = invoke("status", "demo").stderr
    assert "the head of demo is gone, its job has ended: NODE_FAIL" in said
    assert f"`heliostat up {site.path}` starts it anew" in said
    assert "gone" in invoke("list").output


def test_a_watch_of_the_queue_outlives_a_slurm_that_is_away(
    site: Site, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.up(detach=True, queued_is_enough=True)
    site.slurm.counts.clear()
    site.slurm.away = {("squeue", 2)}

    def gone_at_last(number: int) -> None:
        if number == 4:
            site.slurm.jobs.clear()

    site.slurm.on_look = gone_at_last
    monkeypatch.setattr(status, "QUEUE_WATCH_S", 0.0)
    result = invoke("status", "demo", "--watch")
    assert result.stdout.count("waiting for the head: Slurm job 100") == 2
    assert result.stderr.splitlines() == [
        f"demo: {AWAY}",
        "heliostat: the head of demo never came up: its job is over; `heliostat down demo` clears it away",
    ]


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
