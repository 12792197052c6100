"""What checks look at: the world's truth, what was asked of it, and the controller, if one lives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from heliostat.control.loop import Controller
from heliostat.sim.loop import VirtualLoop
from heliostat.sim.scenario import Scenario
from heliostat.sim.witness import Witness
from heliostat.sim.world.machine import Machine
from heliostat.sim.world.world import World
from heliostat.sim.wrapper import OURS, Wrapper


@dataclass
class View:
    """`ours`: machines with our tags that are not over; refreshed before each round of checks."""

    scenario: Scenario
    loop: VirtualLoop
    world: World
    wrapper: Wrapper
    witness: Witness
    ours: list[Machine] = field(default_factory=list)

    @property
    def now_s(self) -> float:
        return self.loop.time()

    @property
    def controller(self) -> Controller | None:
        return self.wrapper.controller

    def refresh(self) -> None:
        self.ours = [one for one in self.world.living() if one.identity == OURS]

    def is_member(self, machine: Machine) -> bool:
        """Say whether the machine is a Ray node at this moment."""
        return bool(machine.node_id) and self.world.ray.node(machine.node_id) is not None

    def is_busy(self, machine: Machine) -> bool:
        """Say whether work runs on the machine, or a result that is needed lies there."""
        node = self.world.ray.node(machine.node_id) if machine.node_id else None
        return node is not None and not node.is_idle


class Check(Protocol):
    """One rule. `look()` yields a sentence for each breach it sees; it is called whenever something
    changed, and once a second at least."""

    name: str

    def look(self) -> Iterator[str]: ...
