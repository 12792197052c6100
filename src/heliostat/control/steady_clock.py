"""The controller's clock: Unix time that never jumps, whatever happens to the host's."""

from __future__ import annotations

from heliostat.model.history import History
from heliostat.model.host_time import HostTime, begun
from heliostat.ports.clock import HostClock
from heliostat.ports.journal import Journal


class SteadyClock:
    """`ports.clock.Clock`: it begins with the host's wall clock and goes with the host's uptime.

    Everything in a controller's process takes its time here, so that times which meet are of one clock. It
    goes on where an earlier controller's was, of which `history` is left.
    """

    def __init__(self, host: HostClock, history: History | None = None) -> None:
        uptime_s, wall_s = host.uptime_s(), host.now_s()
        now_s = wall_s
        if history is not None:
            now_s = begun(
                history.host,
                boot_id=host.boot_id(),
                uptime_s=uptime_s,
                wall_s=wall_s,
                latest_s=history.rounds_at_s or 0.0,
            )
        self._host = host
        self._booted_at_s = now_s - uptime_s

    @classmethod
    def after(cls, journal: Journal, host: HostClock) -> SteadyClock:
        """Go on where the journal's last controller was, unless that left nothing in any backend.

        Then it begins anew, and what is remembered of a time to come counts as now (`planner.folding`).
        """
        return cls(host, journal.history() if journal.intents() else None)

    def now_s(self) -> float:
        return self._booted_at_s + self._host.uptime_s()

    def host_time(self) -> HostTime:
        return HostTime(self._host.boot_id(), self._booted_at_s, self._host.now_s() - self.now_s())

    def monotonic_s(self) -> float:
        return self._host.monotonic_s()

    def utc_offset_s(self) -> float:
        return self._host.utc_offset_s() + self.host_time().ahead_s

    async def sleep(self, seconds: float) -> None:
        await self._host.sleep(seconds)
