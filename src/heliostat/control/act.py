"""Act on one backend: one change at a time, each with a deadline, what waits is merged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from heliostat.control.ledger import Ledger
from heliostat.control.wiring import Timing
from heliostat.model.instance import Change
from heliostat.ports.clock import Clock
from heliostat.ports.errors import ProviderError, Unavailable
from heliostat.ports.provider import Outcome, Provider
from heliostat.ports.telemetry import Telemetry

Answer = Callable[[Change, Outcome], None]


class BackendActor:
    """Applies changes to one provider in order; `on_answer` hears of each.

    A call that runs past its deadline counts as `Unavailable`: it may have acted all the
    same, so its launches are neither failed nor asked again; the listing will tell.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        clock: Clock,
        telemetry: Telemetry,
        timing: Timing,
        ledger: Ledger,
        on_answer: Answer,
    ) -> None:
        self.provider = provider
        self._clock = clock
        self._telemetry = telemetry
        self._timing = timing
        self._ledger = ledger
        self._on_answer = on_answer
        self._waiting = Change()
        self._asked = Change()
        self._answered_s: dict[str, float] = {}
        self.task: asyncio.Task[None] | None = None
        self._since_s = 0.0

    @property
    def busy(self) -> bool:
        return self.task is not None and not self.task.done()

    def busy_s(self) -> float:
        """Return for how long the change under way has been; 0 when none is."""
        return self._clock.monotonic_s() - self._since_s if self.busy else 0.0

    def submit(self, change: Change) -> None:
        self._waiting = self._waiting.merged(change)
        if not self.busy and self._waiting:
            self.task = asyncio.create_task(self._work(), name=f"apply-{self.provider.name}")

    def asking(self, listed_at_s: float) -> frozenset[str]:
        """Return the instances whose launch has not been answered yet, or waits for its turn, or was answered
        only after the last listing began, at `listed_at_s` (controller's clock)."""
        self._answered_s = {key: at_s for key, at_s in self._answered_s.items() if at_s >= listed_at_s}
        return frozenset((*_launched(self._asked), *_launched(self._waiting), *self._answered_s))

    async def settle(self) -> None:
        """Wait until nothing is under way; each call has its own deadline."""
        while self.busy and self.task is not None:
            await asyncio.wait([self.task])

    async def _work(self) -> None:
        while self._waiting:
            self._asked, self._waiting = self._waiting, Change()
            outcome = await self._apply(self._asked)
            change, self._asked = self._asked, Change()
            self._answered_s.update(dict.fromkeys(_launched(change), self._clock.now_s()))
            self._on_answer(change, outcome)

    async def _apply(self, change: Change) -> Outcome:
        began_s = self._since_s = self._clock.monotonic_s()
        call = self._ledger.began(self.provider.name, change)
        answer = await self._answer(change)
        took_s = self._clock.monotonic_s() - began_s
        self._telemetry.observe("apply_ms", took_s * 1000)
        self._ledger.ended(call, answer, took_s=took_s)
        if isinstance(answer, Outcome):
            return answer
        deadline_s = self._timing.apply_deadline_s
        return _all_failed(change, answer or Unavailable(f"no answer within {deadline_s:.0f} s"))

    async def _answer(self, change: Change) -> Outcome | ProviderError | None:
        """Return what the provider says, None if it says nothing within the deadline."""
        try:
            async with asyncio.timeout(self._timing.apply_deadline_s):
                return await self.provider.apply(change)
        except TimeoutError:
            return None
        except ProviderError as error:
            return error


def _launched(change: Change) -> list[str]:
    return [key for one in change.launch for key in one.instance_ids]


def _all_failed(change: Change, error: ProviderError) -> Outcome:
    return Outcome(
        failed_launches={request.launch_id: error for request in change.launch},
        failed_terminations=dict.fromkeys(change.terminate, error),
    )
