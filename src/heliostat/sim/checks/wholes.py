"""Rule 7: what is launched together comes whole or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from heliostat.sim.checks.view import View
from heliostat.sim.wrapper import OURS


class Wholes:
    """Of a gang's allocation a backend has taken on every member, or none.

    What is a gang's, and how large, is what its launch's event says: the request may have lost it.
    """

    name = "wholes"

    def __init__(self, view: View) -> None:
        self._view = view

    def look(self) -> Iterator[str]:
        gangs = self._view.witness.gangs
        if not gangs:
            return
        ours = [one for one in self._view.world.machines() if one.identity == OURS]
        taken = Counter(one.launch_id for one in ours if one.launch_id in gangs)
        for launch_id, count in taken.items():
            if count % gangs[launch_id]:
                yield f"of the gang {launch_id} {count} of {gangs[launch_id]} came"
