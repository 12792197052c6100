"""Rule 6: what fails is asked for ever more seldom, and what never came up in small numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from heliostat.planner.limits import BACKOFF_FIRST_S, FIRST_TRY
from heliostat.sim.checks.view import View
from heliostat.sim.world.machine import Phase

SPARE = 4
"""Attempts beside those of the backoff: floors, gangs and demand may each ask before the first has failed."""


class Patience:
    """Of a type that never joins (`dead_types`): attempts within the backoff, few instances at once.

    A controller that died may have lost the last seconds of its history: that is one more attempt.
    """

    name = "patience"

    def __init__(self, view: View) -> None:
        self._view = view
        self._dead = {
            name: one.throttles for one in view.scenario.backends for name in sorted(one.dead_types)
        }
        self._seen = 0
        self._attempts: Counter[str] = Counter()

    def look(self) -> Iterator[str]:
        if not self._dead:
            return
        view = self._view
        launches = list(view.witness.launches.values())
        # Several gangs may ask in one call: that is one attempt.
        asked = {one.node_type for one in launches[self._seen :] if not one.together}
        self._attempts.update(asked & self._dead.keys())
        self._seen = len(launches)
        # 5 s, 10 s, 20 s, …: the n-th attempt comes no sooner than 5 × (2^n − 1) s.
        most = math.log2(view.now_s / BACKOFF_FIRST_S + 1) + 1
        most += SPARE * (1 + view.witness.losses + view.witness.applications) + view.wrapper.lives - 1
        for name, count in self._attempts.items():
            if count > most:
                yield f"{name} never came up and was asked for {count} times in {view.now_s:.0f} s"
        yield from self._at_once()

    def _at_once(self) -> Iterator[str]:
        """Count what runs of a dead type; where the backend itself throttles, of each of its arrays: one
        request that reached it twice is two of them, each with its own throttle, of the same instances."""
        view = self._view
        running: dict[str, set[str]] = {}
        for one in view.ours:
            asked = view.witness.launches.get(one.launch_id)
            if one.node_type not in self._dead or asked is None or asked.together:
                continue
            # What was given up already, as it never came up, may be followed before it has ended.
            if one.phase is not Phase.QUEUED and one.instance_id not in view.witness.releases:
                array = f"array {one.native_id.partition('_')[0]} of {one.node_type}"
                name = array if self._dead[one.node_type] else one.node_type
                running.setdefault(name, set()).add(one.instance_id)
        for name, instances in running.items():
            if len(instances) > FIRST_TRY:
                yield f"{name} never came up, and {len(instances)} of it run at once"
