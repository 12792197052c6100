"""A driver that nobody speaks to ends, though nobody tells it that its pipe has ended."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(30)]

SOONER = "from heliostat.gateway.work import silence; silence.SILENT_S = 0.3; silence.heard()"
HANGS = "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()"


@pytest.mark.parametrize("then", ["import sys; sys.stdin.read()", HANGS])
def test_it_ends_by_itself(then: str) -> None:
    with subprocess.Popen([sys.executable, "-c", f"{SOONER}; {then}"], stdin=subprocess.PIPE) as process:
        assert process.wait(20) == 1


def test_who_hears_something_goes_on() -> None:
    hears = "silence.SILENT_S = 60; silence.heard(); import threading; threading.Event().wait(0.5)"
    done = subprocess.run([sys.executable, "-c", f"{SOONER}; {hears}"], timeout=20, check=False)
    assert done.returncode == 0
