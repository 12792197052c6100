"""One run: a scenario's world with faults, then without, then the end; and what came of it.

*Safety*: work arrives, faults strike, every rule holds after every step. *Liveness*: nothing goes wrong
any more, work that perhaps can't be done is given up; all other is done within a stated time, then all
that is idle is gone, then `down` leaves nothing.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from heliostat.control.wiring import Timing
from heliostat.planner.limits import DOWN_KEPT_S
from heliostat.ports.errors import HeliostatError
from heliostat.sim.checks.given_up import LISTED_S
from heliostat.sim.checks.known import gave_up
from heliostat.sim.checks.suite import Broken, Suite, Violation
from heliostat.sim.checks.view import View
from heliostat.sim.clock import SimClock, SimIds
from heliostat.sim.dice import Dice
from heliostat.sim.faults import Mischief
from heliostat.sim.feasible import is_feasible
from heliostat.sim.journal import Disk
from heliostat.sim.loop import Stuck, VirtualLoop
from heliostat.sim.moments import Moments
from heliostat.sim.people import People
from heliostat.sim.process import Killed
from heliostat.sim.scenario import Scenario
from heliostat.sim.trace import Trace
from heliostat.sim.witness import Witness
from heliostat.sim.world.ends import Cause
from heliostat.sim.world.machine import Phase
from heliostat.sim.world.ray.sim import RECONNECT_S
from heliostat.sim.world.work import Work, WorkState
from heliostat.sim.world.world import World
from heliostat.sim.wrapper import OURS, ConfigFile, Host, Wrapper

MET_S = 1_500.0
"""Within so long, and the time that what is left takes one after another, all feasible work is done. The
longest backoff is 600 s, twice a start and a queue come on top."""

TRIES = 5
"""So often a type that never comes up is tried before its backoff (5 s, 10 s, …) is longer than it takes to
bring up another one; each time the work that it is preferred for waits for `start_timeout_s`."""

GONE_S = 300.0 + DOWN_KEPT_S
"""So long after the idle timeout nothing idle is left: drains may go one at a time, machines take time, and
nothing goes of a type while many of its nodes count as down."""

DOWN_S = 300.0
"""`down` may wait for work that is told to end, and for its own `wind_down_s`."""


KINDS_OF_ENDS = {
    Cause.PREEMPTED: "preemption",
    Cause.DIED: "node death",
    Cause.LEASE: "lease end",
    Cause.EXITED: "failed start",
    Cause.TWIN: "two for one id",
}
"""What the world does to machines, in the words of `faults.KINDS`."""


@dataclass(frozen=True)
class Result:
    """What came of a run. `seconds` are virtual ones; `machines_most` is how many of ours were there at
    a time; `lines` the trace, where it was kept."""

    seed: int
    steps: int
    seconds: float
    digest: str
    faults: Counter[str]
    violation: Violation | None = None
    machines_most: int = 0
    lines: list[str] = field(default_factory=list)


def run(scenario: Scenario, *, keep_lines: bool = False) -> Result:
    """Run a scenario to its end, or to the first rule that does not hold."""
    simulation = _Simulation(scenario, keep_lines=keep_lines)
    try:
        with _errors_to(simulation.wrapper.surprises):
            violation = simulation.violation()
    finally:
        simulation.close()
    return Result(
        scenario.seed,
        simulation.loop.steps,
        round(simulation.loop.time(), 3),
        simulation.trace.digest(),
        simulation.happened(),
        violation,
        simulation.view.most,
        simulation.trace.lines or [],
    )


class _Simulation:
    def __init__(self, scenario: Scenario, *, keep_lines: bool) -> None:
        dice = Dice(scenario.seed)
        self.scenario = scenario
        self.loop = VirtualLoop(dice.stream("order") if scenario.shuffled else None)
        self.trace = Trace(self.loop.time, keep=keep_lines)
        self.mischief = Mischief(scenario.faults, dice=dice)
        self.world = World(scenario, loop=self.loop, dice=dice, trace=self.trace)
        self.disk = Disk()
        host = Host(
            loop=self.loop,
            file=ConfigFile(scenario.spec),
            timing=Timing(round_s=scenario.round_s),
            disk=self.disk,
            clock=SimClock(self.loop),
            ids=SimIds(),
            provider=lambda name, now_s: self.world.provider(name, OURS, now_s=now_s),
            echo=lambda name, now_s: self.world.provider(name, OURS, now_s=now_s, looks=False),
            cluster=lambda session: self.world.cluster(OURS, session=session),
            mischief=self.mischief,
            witness=Witness(),
            trace=self.trace,
            away=set(),
            arrive=self.world.workload.arrive,
        )
        self.wrapper = Wrapper(host)
        self.moments = Moments(self.world, self.wrapper)
        self.people = People(self.wrapper, scenario.people, dice=dice)
        view = View(scenario, self.loop, self.world, self.wrapper, host.witness)
        self.suite = Suite(view)
        self.view = view
        self.loop.on_step.append(self.suite.step)

    def violation(self) -> Violation | None:
        """Run all phases; return the first breach, None where every rule held."""
        try:
            self._safety()
            self._liveness()
        except Broken as broken:
            return broken.violation
        except Stuck as stuck:
            return Violation("stuck", str(stuck), round(self.loop.time(), 3), self.loop.steps)
        return None

    def happened(self) -> Counter[str]:
        """Return what went wrong, by kind: what was done to the run, and what befell machines by itself."""
        machines = self.world.machines()
        ends = Counter(KINDS_OF_ENDS[one.cause] for one in machines if one.cause in KINDS_OF_ENDS)
        ends["stockout"] = sum(one.stockouts for one in self.world.backends.values())
        return self.mischief.happened + ends

    def close(self) -> None:
        self.loop.close()
        self.wrapper.bury()
        self.disk.close()

    # -- phases -------------------------------------------------------------------------

    def _safety(self) -> None:
        scenario, loop = self.scenario, self.loop
        self.world.begin()
        self.moments.begin()
        self.people.begin()
        loop.apart(0.0, self.wrapper.start)
        loop.apart(scenario.safety_s, lambda: None)
        loop.run_while(
            lambda: (
                loop.time() < scenario.safety_s
                and loop.steps < scenario.steps_most
                and not self.wrapper.is_down
            )
        )

    def _liveness(self) -> None:
        self.mischief.stop()
        self.moments.end()
        self.people.end()
        self.world.calm()
        self.trace.add("run", "nothing goes wrong any more")
        self._give_up()
        if not self._is_going_down():
            self._met()
        if not self._is_going_down():
            self._gone()
            self.wrapper.go_down("the run is over")
        self._down()
        if not self.scenario.faults and self.wrapper.lives == 1:
            self._accounted()

    def _give_up(self) -> None:
        """Take back all work that perhaps can't be done, and the results of such work: it would be made
        again, for as long, when their nodes end."""
        ledger, scenario = self.world.ray.ledger, replace(self.scenario, spec=self.wrapper.host.spec)
        done = (one for one in ledger.works.values() if one.state is WorkState.DONE)
        for one in [*ledger.unfinished.values(), *done]:
            if not is_feasible(one, scenario):
                self.world.ray.scheduler.cancel(one)

    def _is_going_down(self) -> bool:
        """Say whether the cluster ends for a reason of its own: another head answered, or none for long."""
        controller = self.wrapper.controller
        return self.wrapper.is_down or (controller is not None and controller.going_down is not None)

    def _met(self) -> None:
        within_s = MET_S + self._tries_s() + sum(one.work_s for one in self._unfinished())
        if self._until(lambda: not self._unfinished() or self._is_going_down(), within_s):
            names = ", ".join(f"{one} {one.bundle}" for one in self._unfinished()[:5])
            self.suite.fail("met", f"after {within_s:.0f} s without faults these are not done: {names}")

    def _tries_s(self) -> float:
        dead = {name for one in self.scenario.backends for name in one.dead_types}
        types = self.view.policy.node_types
        return TRIES * sum(one.start_timeout_s for one in types if one.name in dead)

    def _unfinished(self) -> list[Work]:
        return list(self.world.ray.ledger.unfinished.values())

    def _gone(self) -> None:
        within_s = GONE_S + self.view.policy.idle_timeout_s

        def at_rest() -> bool:
            self.view.refresh()
            return len(self.view.ours) <= self._floors() and self.wrapper.controller is not None

        if self._until(at_rest, within_s):
            names = ", ".join(f"{one} {one.phase.value}" for one in self.view.ours)
            floors = self._floors()
            self.suite.fail("gone", f"{within_s:.0f} s after the last work {names} are there, floor {floors}")

    def _floors(self) -> int:
        """Return how many stay: by the file, or since a person asked for them and nobody took it back."""
        controller = self.wrapper.controller
        asked = controller.memory.operator.floors if controller is not None else {}
        types = self.view.policy.node_types
        return sum(min(max(one.min_workers, asked.get(one.name, 0)), one.max_workers) for one in types)

    def _down(self) -> None:
        def over() -> bool:
            self.view.refresh()
            return self.wrapper.is_down and not self.view.ours

        within_s = DOWN_S
        late = self._until(over, within_s)
        hidden = late and all(map(self.view.was_hidden, self.view.ours))
        if late and self.wrapper.is_down and (hidden or gave_up(self.wrapper)):
            # A backend lied, or was away for too long: what it has ends when it hears of nobody any more. Its
            # wrapper ends the head last, so what works still goes with that (`RECONNECT_S`).
            self.world.ray.die()
            alone_s = self.scenario.spec.orphan_timeout_s + RECONNECT_S
            within_s += alone_s
            late = self._until(over, alone_s) and not all(
                # What never comes to run a bootstrap is left to its time limit, or to `doctor`.
                one.phase is Phase.BOOTING
                for one in self.view.ours
            )
        if late:
            names = ", ".join(f"{one} {one.phase.value}" for one in self.view.ours)
            state = "is down" if self.wrapper.is_down else "has not ended"
            self.suite.fail(
                "down", f"{within_s:.0f} s after `down` the controller {state}; left: {names or 'none'}"
            )

    def _accounted(self) -> None:
        """Compare the journal's node time with the machines': nothing kept the controller from counting."""
        ours = [one for one in self.world.machines() if one.identity == OURS]
        true_s: defaultdict[str, float] = defaultdict(float)
        for one in ours:
            if one.started_s is None:
                # It may be paid for all the same: a cloud lists as starting what it has taken on.
                continue
            over_s = self.loop.time() if one.over_s is None else one.over_s
            true_s[one.node_type] += over_s - one.started_s
        said_s: defaultdict[str, float] = defaultdict(float)
        for row in self.disk.open(OURS.cluster_uid).usage():
            said_s[row.node_type] += row.node_s
        counts = Counter(one.node_type for one in ours)
        for name in sorted(true_s.keys() | said_s.keys()):
            if abs(said_s[name] - true_s[name]) > LISTED_S * counts[name]:
                words = f"{said_s[name]:.0f} s of {name} are accounted for, {true_s[name]:.0f} s were there"
                self.suite.fail("usage", words)

    def _until(self, reached: Callable[[], bool], within_s: float) -> bool:
        """Run until it is reached, looked at once a second; say whether it took too long."""
        loop, until_s = self.loop, self.loop.time() + within_s
        while not reached():
            if loop.time() >= until_s:
                return True
            self._pass(min(1.0, until_s - loop.time()))
        return False

    def _pass(self, seconds: float) -> None:
        until_s = self.loop.time() + seconds
        self.loop.call_at(until_s, lambda: None)
        self.loop.run_while(lambda: self.loop.time() < until_s)


@contextlib.contextmanager
def _errors_to(surprises: list[str]) -> Iterator[None]:
    """Let the loop's log go nowhere, but for errors that it logs and nobody has words for."""

    def take(_: Any, __: str, entry: MutableMapping[str, Any]) -> str:
        error = sys.exception()
        if error is not None and not isinstance(error, HeliostatError | Killed):
            surprises.append(f"{entry.get('event')}: {error!r}")
        raise structlog.DropEvent

    before, was_collecting = structlog.get_config(), gc.isenabled()
    structlog.configure(processors=[take], wrapper_class=structlog.make_filtering_bound_logger(40))
    # A run's garbage goes with the run; the collector would look at it again and again.
    gc.disable()
    try:
        yield
    finally:
        structlog.configure(**before)
        if was_collecting:
            gc.enable()
