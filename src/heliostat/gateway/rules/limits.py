"""What each caller uses and may use: calls at a time, GPU seconds a day. A pure state machine, given `now_s`.

A call claims the most that it can cost before it begins and settles for what it did cost, so that no number
of calls at once can pass a limit. Days are UTC days; a call counts on the day on which it ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.work.port import Needs
from heliostat.model.gateway import CallLimits

DAY_S = 86_400.0


@dataclass(frozen=True)
class Claim:
    """What a call that has not ended may cost its account."""

    account: str
    gpu_s: float


class Usage:
    """Who uses what now and has used today. Each `claim` is settled once."""

    def __init__(self) -> None:
        self._open: dict[str, Claim] = {}
        self._day = 0
        self._spent: dict[str, float] = {}

    def claim(self, call_id: str, account: str, *, needs: Needs, limits: CallLimits, now_s: float) -> None:
        """Take a call in, or raise CallError(LIMIT) and change nothing."""
        assert call_id not in self._open
        self.check_calls(account, limits)
        gpu_s = needs.gpus * needs.timeout_s
        if limits.gpu_s_per_day is not None and gpu_s > 0:
            left_s = limits.gpu_s_per_day - self.spent_s(account, now_s=now_s) - self.claimed_s(account)
            if gpu_s > left_s:
                raise CallError(Code.LIMIT, _too_much(needs, left_s))
        self._open[call_id] = Claim(account, gpu_s)

    def check_calls(self, account: str, limits: CallLimits) -> None:
        """Raise CallError(LIMIT) where the account may have no more calls now."""
        most = limits.calls_at_a_time
        if most is not None and self.calls(account) >= most:
            raise CallError(Code.LIMIT, f"you may have {most} calls at a time, and so many have not ended")

    def settle(self, call_id: str, *, gpu_s: float, now_s: float) -> None:
        """End a call that has cost so much; it may have cost more than it claimed."""
        self.add(self._open.pop(call_id).account, gpu_s, at_s=now_s, now_s=now_s)

    def add(self, account: str, gpu_s: float, *, at_s: float, now_s: float) -> None:
        """Count what was used at `at_s`, if that is today."""
        self._turn(now_s)
        if day_of(at_s) == self._day:
            self._spent[account] = self._spent.get(account, 0.0) + max(0.0, gpu_s)

    def calls(self, account: str) -> int:
        return sum(1 for one in self._open.values() if one.account == account)

    def claimed_s(self, account: str) -> float:
        return sum(one.gpu_s for one in self._open.values() if one.account == account)

    def spent_s(self, account: str, *, now_s: float) -> float:
        """Return the GPU seconds of today's calls that have ended."""
        self._turn(now_s)
        return self._spent.get(account, 0.0)

    def _turn(self, now_s: float) -> None:
        # A clock that is set back is no new day: what was used stays used.
        if day_of(now_s) > self._day:
            self._day = day_of(now_s)
            self._spent.clear()


def day_of(at_s: float) -> int:
    """Return the UTC day's number, counted from 1970."""
    return int(at_s // DAY_S)


def check_asked(needs: Needs) -> None:
    """Raise CallError where a call asks for what makes no sense."""
    amounts: dict[str, float] = {
        "cpus": needs.cpus,
        "gpus": needs.gpus,
        "memory_bytes": needs.memory_bytes or 0,
    }
    for name, amount in amounts.items():
        if not (math.isfinite(amount) and amount >= 0):
            raise CallError(Code.INVALID, f"{name} is {amount}; allowed is a number, 0 or more")
    if not needs.timeout_s > 0:
        raise CallError(Code.INVALID, f"timeout_s is {needs.timeout_s}; allowed is a number above 0")


def check_payload(payload_bytes: int, limits: CallLimits) -> None:
    if payload_bytes > limits.payload_bytes:
        text = f"the call brings {payload_bytes} bytes; {limits.payload_bytes} are allowed"
        raise CallError(Code.TOO_LARGE, text)


def _too_much(needs: Needs, left_s: float) -> str:
    if left_s <= 0:
        return (
            "your GPU seconds of today are used up, or claimed by calls that have not ended; a day begins at "
            "0:00 UTC"
        )
    asked_s, longest_s = needs.gpus * needs.timeout_s, left_s / needs.gpus
    return (
        f"{needs.gpus:g} GPUs for up to {needs.timeout_s:g} s are {asked_s:g} GPU seconds, and you have "
        f"{left_s:g} left today: ask for timeout_s of {longest_s:g} or less"
    )
