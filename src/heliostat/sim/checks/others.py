"""Rule 5: what is not ours is never touched."""

from __future__ import annotations

from collections.abc import Iterator

from heliostat.sim.checks.view import View


class Others:
    """Nobody asks to end what carries no tag, or another cluster's."""

    name = "others"

    def __init__(self, view: View) -> None:
        self._view = view

    def look(self) -> Iterator[str]:
        for backend in self._view.world.backends.values():
            for one in backend.trespasses:
                yield f"{one.machine} is not ours, and was to be ended"
