"""What `--auto` does, and when: the part of the person at the second terminal. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Act(Enum):
    """What is done next; `ENOUGH`: the driver may end once it has made its steps."""

    ADD = "add"
    REMOVE = "remove"
    ENOUGH = "enough"


SCENES: tuple[tuple[int, Act], ...] = ((1, Act.ADD), (2, Act.ADD), (3, Act.REMOVE), (2, Act.ENOUGH))
"""With how many members, and what is done then: the sizes are 1, 2, 3, 2."""

SHARE_OF_STEPS = 5
"""Of all steps so many parts are made at each size before something is done; the rest is for waiting."""


@dataclass
class Script:
    """Where the play is. `dwell`: steps at each size before something is done."""

    dwell: int
    scene: int = 0

    @property
    def is_over(self) -> bool:
        return self.scene == len(SCENES)

    def next_act(self, size: int, steps_at_size: int) -> Act | None:
        """Return what is to be done now, once; None while the group has not that size for long enough."""
        if self.is_over:
            return None
        wanted, act = SCENES[self.scene]
        if size != wanted or steps_at_size < self.dwell:
            return None
        self.scene += 1
        return act


def dwell_for(steps: int) -> int:
    """Return the steps to make at each size, of so many in all; one at least."""
    return max(1, steps // SHARE_OF_STEPS)
