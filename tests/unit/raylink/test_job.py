"""A command as a Ray job: its output, its exit code, and what happens when it is stopped or its head goes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from heliostat.raylink import job
from heliostat.raylink.job import entrypoint, run, stopped


@dataclass
class Status:
    word: str

    def is_terminal(self) -> bool:
        return self.word != "RUNNING"

    def __str__(self) -> str:
        return self.word


@dataclass
class Info:
    status: Status
    driver_exit_code: int | None = None
    message: str = ""


@dataclass
class Jobs:
    """Ray's job server: `infos` are its answers, the last one again and again."""

    infos: list[Info | Exception]
    lines: tuple[str, ...] = ("hello\n",)
    stopped: list[str] = field(default_factory=list)
    submitted: list[str] = field(default_factory=list)
    refusal: Exception | None = None

    def submit_job(self, *, entrypoint: str, submission_id: str) -> str:
        if self.refusal:
            raise self.refusal
        self.submitted.append(entrypoint)
        return submission_id

    def get_job_info(self, job_id: str) -> Info:
        info = self.infos.pop(0) if len(self.infos) > 1 else self.infos[0]
        if isinstance(info, Exception):
            raise info
        return info

    def stop_job(self, job_id: str) -> bool:
        if self.refusal:
            raise self.refusal
        self.stopped.append(job_id)
        self.infos = [Info(Status("STOPPED"))]
        return True

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        for one in self.lines:
            if one == "broken":
                raise RuntimeError("WebSocket connection closed unexpectedly")
            yield one


RUNNING = Info(Status("RUNNING"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "LOOK_S", 0.01)


@pytest.mark.parametrize("code", [0, 7])
async def test_output_and_exit_code_are_the_commands(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = Jobs([RUNNING, RUNNING, Info(Status("FAILED" if code else "SUCCEEDED"), code)], ("a\n", "b\n"))
    assert await run(jobs, "run-1", "python x.py", stop=asyncio.Event()) == code
    assert jobs.submitted == ["python x.py"]
    assert capsys.readouterr().out == "a\nb\n"


async def test_a_signal_stops_the_job() -> None:
    jobs, stop = Jobs([RUNNING]), asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, stop.set)
    assert await asyncio.wait_for(run(jobs, "run-1", "x", stop=stop), 5) == 143
    assert jobs.stopped == ["run-1"]


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        (Jobs([Info(Status("FAILED"), None, "Runtime env failed")]), "heliostat: Runtime env failed\n"),
        (Jobs([Info(Status("STOPPED"))]), "heliostat: the job ended as STOPPED\n"),
        (
            Jobs([RUNNING, ConnectionError("refused\nmore")]),
            "heliostat: the head can't be asked any more: refused\n",
        ),
        (Jobs([RUNNING], refusal=RuntimeError("no")), "heliostat: the head can't be asked any more: no\n"),
    ],
)
async def test_what_has_no_exit_code_says_why(
    jobs: Jobs, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(jobs, "run-1", "x", stop=asyncio.Event()) == 1
    assert capsys.readouterr().err == said


async def test_a_broken_line_costs_output_not_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = Jobs([RUNNING, Info(Status("SUCCEEDED"), 0)], ("a\n", "broken"))
    assert await run(jobs, "run-1", "x", stop=asyncio.Event()) == 0
    assert capsys.readouterr().out == "a\n"


def test_it_runs_in_the_callers_folder_with_the_heads_python(tmp_path: Path) -> None:
    folder, binaries = tmp_path / "my work", tmp_path / "venv" / "bin"
    folder.mkdir()
    binaries.mkdir(parents=True)
    (binaries / "python").symlink_to(sys.executable)
    command = entrypoint(
        str(folder),
        ["python", "-S", "-c", "import os, sys; print(os.getcwd(), sys.argv[1:])", "a b"],
        python=str(binaries / "python"),
    )
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == f"{folder} ['a b']\n"


@pytest.mark.parametrize("refusal", [None, RuntimeError("Job run-1 does not exist"), ConnectionError("gone")])
async def test_a_job_is_stopped_from_outside(refusal: Exception | None) -> None:
    jobs = Jobs([RUNNING], refusal=refusal)
    assert await stopped(jobs, "run-1") == 0
    assert jobs.stopped == ([] if refusal else ["run-1"])
