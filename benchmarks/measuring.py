"""What the benchmarks of backends share: waiting with a deadline, quantiles, and how they are run."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

from heliostat.raylink.token import MODE_VARIABLE, auth_environment, token_path

POLL_S = 0.01
WAIT_S = 90.0


def until(what: str, found: Callable[[], float | None], *, wait_s: float = WAIT_S) -> float:
    """Poll `found` until it returns a time; fail after `wait_s`."""
    deadline_s = time.time() + wait_s
    while time.time() < deadline_s:
        value = found()
        if value is not None:
            return value
        time.sleep(POLL_S)
    raise SystemExit(f"{what} did not happen within {wait_s:.0f} s")


def p95(values: Sequence[float]) -> float:
    """Return the 95th percentile; of a few values the largest."""
    return sorted(values)[min(len(values) - 1, round(len(values) * 0.95))]


def run_with_token() -> None:
    """Start this command again with Ray's token authentication, unless it has been.

    Ray reads the mode when it is imported, which has happened by now.
    """
    if os.environ.get(MODE_VARIABLE) != "token":
        with_token = os.environ | auth_environment(token_path(os.environ))
        os.execve(sys.executable, [sys.executable, *sys.argv], with_token)


def end_on_term() -> None:
    """Leave as on Ctrl-C when ended from outside, so that what was started is ended, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
