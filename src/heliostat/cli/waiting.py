"""Waiting for a cluster to get somewhere: polled, bounded, and calm while a controller restarts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from heliostat.api.client import ControllerClient, NoAnswer, NotRunning
from heliostat.cli.durations import humanise
from heliostat.model.report import StatusReport
from heliostat.ports.errors import HeliostatError

T = TypeVar("T")

RESTART_GRACE_S = 30.0
"""How long a controller that does not answer may take to be back before a wait gives up."""


class TookTooLong(HeliostatError):
    """What was waited for did not happen in time."""


@dataclass(frozen=True)
class Pace:
    """How to wait. `monotonic_s` and `sleep` are time's own, or a test's."""

    timeout_s: float
    poll_s: float = 0.5
    monotonic_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def wait_until(client: ControllerClient, judge: Callable[[StatusReport], T | None], *, pace: Pace) -> T:
    """Return the first answer of `judge` that is not None.

    Raises TookTooLong after `pace.timeout_s`, and the client's own error when no controller
    has answered for RESTART_GRACE_S.
    """
    started_s = heard_s = pace.monotonic_s()
    while True:
        try:
            answer = judge(client.status())
            heard_s = pace.monotonic_s()
        except (NotRunning, NoAnswer):
            if pace.monotonic_s() - heard_s > RESTART_GRACE_S:
                raise
            answer = None
        if answer is not None:
            return answer
        if pace.monotonic_s() - started_s >= pace.timeout_s:
            raise TookTooLong(f"not there after {humanise(pace.timeout_s)}; `heliostat status` shows more")
        pace.sleep(pace.poll_s)
