from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN = """
import os, sys
from heliostat.cli import child
try:
    code = child.run(sys.argv[1:], os.environ)
except child.NotStarted as error:
    print(error)
    code = error.exit_code
print("cleaned up", flush=True)
sys.exit(code)
"""

SLEEPER = """
import pathlib, signal, sys, time
def stop(number, _):
    print(f"child got {number}", flush=True)
    sys.exit(number + 40)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, stop)
pathlib.Path(sys.argv[1]).touch()
while True:
    time.sleep(30)
"""


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, *argv], capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["sh", "-c", "exit 0"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -9 $$"], 137),
        (["/no/such/command"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_the_exit_code_is_kept(argv: list[str], code: int) -> None:
    done = run(*argv)
    assert done.returncode == code
    assert "cleaned up" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_reach_the_command_and_we_clean_up(tmp_path: Path, number: signal.Signals) -> None:
    ready = tmp_path / "ready"
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, sys.executable, "-c", SLEEPER, str(ready)],
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline_s = time.monotonic() + 20
    while not ready.exists():
        assert time.monotonic() < deadline_s, "the command did not start"
        time.sleep(0.02)
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=20)
    assert output.count(f"child got {number.value}") == 1
    assert "cleaned up" in output
    assert process.returncode == number + 40
