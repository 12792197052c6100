"""Rule 1: whatever runs for us is known, and of two with one id at most one joins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from heliostat.control.wiring import Timing
from heliostat.model.plan import Why
from heliostat.planner.limits import LOST_AFTER_S
from heliostat.sim.checks.view import View
from heliostat.sim.witness import lies_of
from heliostat.sim.world.machine import Machine, Phase
from heliostat.sim.wrapper import Wrapper

ADOPT_S = 100.0
"""A backend where nothing moves is listed every 60 s (`Timing.listing_slow_s`), which may fail once."""

HONEST_S = 60.0
"""Two listings that lack an instance may be the last lie and one before it, each up to a minute old."""

DOUBLE_S = 120.0
"""Of two that have started, one has ended by then: a start, the look at the claim, and the end."""


class Known:
    """Nothing is asked for before it is in the journal, and every living machine with our tags is in it,
    `ADOPT_S` after it came at the latest.

    Only time counts in which nothing stood between the controller and the backend.
    """

    name = "known"

    def __init__(self, view: View) -> None:
        self._view = view
        self._buried = 0
        self._unknown_since_s: dict[str, float] = {}
        self._lags_s = {one.name: one.lag_s for one in view.scenario.backends}

    def look(self) -> Iterator[str]:
        view, since_s = self._view, self._unknown_since_s
        for instance_id in view.witness.unwritten:
            yield f"{instance_id} was asked for and is not in the journal"
        for words in view.witness.vanished:
            yield f"{words}, was written, and the next controller did not find it so"
        yield from self._buried_alive()
        unknown = [one for one in view.ours if one.instance_id not in view.witness.intents]
        self._unknown_since_s = {str(one): since_s.get(str(one), view.now_s) for one in unknown}
        for one in unknown:
            untroubled_s = view.witness.untroubled_s(view.now_s, one.backend, "controller")
            known_s = min(view.now_s - self._unknown_since_s[str(one)], untroubled_s)
            if known_s > ADOPT_S:
                yield f"{one} is not in the journal for {known_s:.0f} s"

    def _buried_alive(self) -> Iterator[str]:
        view, buried = self._view, self._view.witness.buried
        new, self._buried = set(buried[self._buried :]), len(buried)
        for one in view.ours if new else ():
            listed = view.now_s - one.asked_s > HONEST_S + self._lags_s[one.backend]
            honest_s = view.witness.untroubled_s(view.now_s, lies_of(one.backend))
            if one.instance_id in new and listed and honest_s > HONEST_S:
                yield f"{one} is forgotten, and is {one.phase.value}"


class Gone:
    """`down` is over only when all is gone, unless it has given up: what is left then ends as orphans do."""

    name = "down"

    def __init__(self, view: View) -> None:
        self._view = view
        self._told = False
        self._lags_s = {one.name: one.lag_s for one in view.scenario.backends}

    def look(self) -> Iterator[str]:
        view, took_s = self._view, self._view.wrapper.took_down_s
        if self._told or not view.wrapper.is_down:
            return
        self._told = True
        for one in () if gave_up(view.wrapper) else view.ours:
            listed = view.now_s - one.asked_s > took_s + self._lags_s[one.backend]
            if listed and view.witness.untroubled_s(view.now_s, lies_of(one.backend)) > took_s + HONEST_S:
                yield f"`down` is over after {took_s:.0f} s, and {one} is {one.phase.value}"


def gave_up(wrapper: Wrapper) -> bool:
    """Say whether `down` took all the time that it waits for what does not go."""
    return wrapper.took_down_s > Timing().wind_down_s


class NotLost:
    """Unknown is not empty: nothing is given up as lost that is there, and that listings would have shown.

    A listing that lied, or lagged, is believed; one that failed says nothing.
    """

    name = "lost"

    def __init__(self, view: View) -> None:
        self._view = view
        self._seen = 0
        self._lags_s = {one.name: one.lag_s for one in view.scenario.backends}

    def look(self) -> Iterator[str]:
        view = self._view
        recorded = view.witness.recorded
        lost = {one.instance_id for one in recorded[self._seen :] if one.why == Why.LOST.value}
        self._seen = len(recorded)
        for instance_id in sorted(lost & view.witness.under_way):
            yield f"{instance_id} is given up as lost, and is still being asked for"
        for one in view.ours if lost else ():
            long_there = view.now_s - one.asked_s > LOST_AFTER_S + self._lags_s[one.backend]
            honest_s = view.witness.untroubled_s(view.now_s, lies_of(one.backend))
            if one.instance_id in lost and long_there and honest_s > LOST_AFTER_S + HONEST_S:
                yield f"{one} is given up as lost, and is {one.phase.value}"


class Single:
    """One instance id is one Ray node at most; a second machine of that id is over soon."""

    name = "single"

    def __init__(self, view: View) -> None:
        self._view = view
        self._double_since_s: dict[str, float] = {}
        self._dead = {name for one in view.scenario.backends for name in one.dead_types}

    def look(self) -> Iterator[str]:
        view = self._view
        doubles = self._doubles()
        since_s = {one: self._double_since_s.get(one, view.now_s) for one in doubles}
        self._double_since_s = since_s
        for instance_id, machines in doubles.items():
            nodes = [one for one in machines if view.is_member(one)]
            if len(nodes) > 1:
                yield f"{instance_id} is {len(nodes)} nodes at once: {', '.join(map(str, nodes))}"
            if view.now_s - since_s[instance_id] > DOUBLE_S:
                yield f"{instance_id} runs twice for {DOUBLE_S:.0f} s: {', '.join(map(str, machines))}"

    def _hangs(self, machine: Machine) -> bool:
        return machine.phase is Phase.BOOTING and machine.node_type in self._dead

    def _doubles(self) -> dict[str, list[Machine]]:
        """Return, by instance id, the machines of those ids that have started more than one.

        One that hangs on its way up, of a type that never comes up, claims nothing: it is `given`'s.
        """
        started = [one for one in self._view.ours if one.phase is not Phase.QUEUED and not self._hangs(one)]
        counts = Counter(one.instance_id for one in started)
        if len(counts) == len(started):
            return {}
        return {
            instance_id: [one for one in started if one.instance_id == instance_id]
            for instance_id, count in counts.items()
            if count > 1
        }
