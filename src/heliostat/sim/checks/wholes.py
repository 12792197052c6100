"""Rule 7: what is launched together comes whole or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from heliostat.sim.checks.view import View
from heliostat.sim.wrapper import OURS


class Wholes:
    """Of a gang's allocation a backend has taken on every member, or none."""

    name = "wholes"

    def __init__(self, view: View) -> None:
        self._view = view

    def look(self) -> Iterator[str]:
        together = {key: one for key, one in self._view.witness.launches.items() if one.together}
        if not together:
            return
        ours = [one for one in self._view.world.machines() if one.identity == OURS]
        taken = Counter(one.launch_id for one in ours if one.launch_id in together)
        for launch_id, count in taken.items():
            size = len(together[launch_id].instance_ids)
            if count % size:
                yield f"of the gang {launch_id} {count} of {size} came"
