from __future__ import annotations

import pytest

from heliostat.api.client import ControllerClient, NotRunning
from heliostat.cli.waiting import RESTART_GRACE_S, Pace, TookTooLong, wait_until
from heliostat.model.report import StatusReport
from tests.unit.api.fakes import report


class Scripted(ControllerClient):
    """A client that answers from a list; its last answer is repeated."""

    def __init__(self, *answers: StatusReport | Exception) -> None:
        super().__init__("/nowhere")
        self.answers = list(answers)

    def status(self, *, timeout_s: float = 1.0) -> StatusReport:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Time:
    def __init__(self) -> None:
        self.now_s = 0.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def pace(self, timeout_s: float) -> Pace:
        return Pace(timeout_s, poll_s=1.0, monotonic_s=lambda: self.now_s, sleep=self.sleep)


def phase(one: StatusReport) -> str | None:
    return one.phase if one.phase == "running" else None


def test_it_returns_the_first_answer() -> None:
    client = Scripted(report(phase="starting"), report(phase="starting"), report())
    time = Time()
    assert wait_until(client, phase, pace=time.pace(60)) == "running"
    assert time.now_s == 2


def test_it_has_a_limit() -> None:
    time = Time()
    with pytest.raises(TookTooLong, match="not there after 60 s"):
        wait_until(Scripted(report(phase="starting")), phase, pace=time.pace(60))
    assert time.now_s == 60


def test_a_restarting_controller_is_waited_for() -> None:
    client = Scripted(NotRunning("x"), NotRunning("x"), report())
    assert wait_until(client, phase, pace=Time().pace(60)) == "running"


def test_a_controller_that_stays_away_is_not() -> None:
    time = Time()
    with pytest.raises(NotRunning):
        wait_until(Scripted(NotRunning("x")), phase, pace=time.pace(600))
    assert RESTART_GRACE_S < time.now_s < RESTART_GRACE_S + 3
