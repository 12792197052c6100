"""What checks look at: the world's truth, what was asked of it, and the controller, if one lives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from heliostat.control.loop import Controller
from heliostat.model.node_type import Policy
from heliostat.sim.loop import VirtualLoop
from heliostat.sim.scenario import Scenario
from heliostat.sim.witness import Witness, lies_of
from heliostat.sim.world.machine import Machine
from heliostat.sim.world.world import World
from heliostat.sim.wrapper import OURS, Wrapper


@dataclass
class View:
    """`ours`: machines with our tags that are not over, refreshed before each round of checks; `most`: how
    many there ever were at a time."""

    scenario: Scenario
    loop: VirtualLoop
    world: World
    wrapper: Wrapper
    witness: Witness
    ours: list[Machine] = field(default_factory=list)
    most: int = 0

    @property
    def now_s(self) -> float:
        return self.loop.time()

    @property
    def policy(self) -> Policy:
        """What the cluster file says now."""
        return self.wrapper.host.spec.policy

    @property
    def controller(self) -> Controller | None:
        return self.wrapper.controller

    def refresh(self) -> None:
        self.ours = [one for one in self.world.living() if one.identity == OURS]
        self._note_trouble()
        self.most = max(self.most, len(self.ours))

    def _note_trouble(self) -> None:
        """Let the witness know of what goes on being in trouble, though nobody calls."""
        process, troubled = self.wrapper.process, self.witness.troubled
        if process is None or process.shelf is not None:
            troubled("controller", self.now_s)
        if not self.world.ray.alive:
            troubled("ray", self.now_s)
        for backend, count in self.witness.unanswered.items():
            if count > 0:
                troubled(backend, self.now_s)

    def lasted_s(self, since_s: float, *whose: str) -> float:
        """Return for how long something has lasted of which a controller could know that spoke to all of
        these, and to Ray, undisturbed."""
        return min(self.now_s - since_s, self.witness.untroubled_s(self.now_s, "controller", "ray", *whose))

    def is_member(self, machine: Machine) -> bool:
        """Say whether the machine is a Ray node at this moment."""
        return bool(machine.node_id) and self.world.ray.node(machine.node_id) is not None

    def was_hidden(self, machine: Machine) -> bool:
        """Say whether a controller could take it for gone, of what it had released: its backend has kept back
        rows since."""
        released = self.witness.releases.get(machine.instance_id)
        lied_s = self.witness.troubled_at_s.get(lies_of(machine.backend))
        return released is not None and lied_s is not None and lied_s >= released.at_s

    def is_busy(self, machine: Machine) -> bool:
        """Say whether work runs on the machine, or a result that is needed lies there."""
        node = self.world.ray.node(machine.node_id) if machine.node_id else None
        return node is not None and not node.is_idle


class Check(Protocol):
    """One rule. `look()` yields a sentence for each breach it sees; it is called whenever something
    changed, and once a second at least."""

    name: str

    def look(self) -> Iterator[str]: ...
