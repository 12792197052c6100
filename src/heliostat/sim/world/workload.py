"""What users ask of Ray, as the seed says: tasks, actors, placement groups, `request_resources()`."""

from __future__ import annotations

from heliostat.model.demand import Constraint, Demand
from heliostat.sim.dice import Dice, Stream
from heliostat.sim.scenario import WorkloadScenario, WorkShape
from heliostat.sim.world.agenda import Agenda
from heliostat.sim.world.ray.sim import RaySim
from heliostat.sim.world.work import Group, Ledger, Work


class Workload:
    """Arrivals from `begin()` to `end()`. `ledger` knows what became of each piece of work."""

    def __init__(self, scenario: WorkloadScenario, *, agenda: Agenda, ray: RaySim, dice: Dice) -> None:
        self.ledger: Ledger = ray.ledger
        self._scenario = scenario
        self._agenda = agenda
        self._ray = ray
        self._chance: Stream = dice.stream("workload")
        self._ids = dice.stream("gang ids")
        self._works = 0
        self._constraints = 0

    def begin(self) -> None:
        self.ledger.is_open = True
        self._plan()

    def end(self) -> None:
        """Let nothing more arrive, and take back what `request_resources()` asked for."""
        self.ledger.is_open = False
        self._ray.constraint = None

    def _plan(self) -> None:
        self._agenda.after(self._chance.uniform(*self._scenario.every_s), self._due)

    def _due(self) -> None:
        if self.ledger.is_open:
            self.arrive()
            self._plan()

    def arrive(self) -> None:
        """Let one arrival come now, unless there is enough work."""
        shapes = self._scenario.shapes
        accepts = self.ledger.is_open and self._ray.alive
        if shapes and accepts and len(self.ledger.unfinished) < self._scenario.unfinished_most:
            weights = [one.weight for one in shapes]
            self.submit(self._chance.choices(shapes, weights)[0])

    def submit(self, shape: WorkShape) -> None:
        """Let one arrival of this kind come now."""
        count, work_s = self._chance.randint(*shape.count), self._chance.uniform(*shape.work_s)
        if shape.kind == "constraint":
            self._request(shape, count, work_s)
        elif shape.kind == "gang":
            self._group(shape, count, work_s)
        else:
            for _ in range(count):
                self._ray.scheduler.submit(self._work(shape, self._chance.uniform(*shape.work_s)))

    def _work(self, shape: WorkShape, work_s: float) -> Work:
        self._works += 1
        pins_s = shape.pins_s if shape.kind == "task" else 0.0
        is_actor = shape.kind == "actor"
        return Work(self._works, shape.bundle, work_s, shape.retries, pins_s=pins_s, is_actor=is_actor)

    def _group(self, shape: WorkShape, count: int, work_s: float) -> None:
        members = tuple(self._work(shape, work_s) for _ in range(count))
        gang_id = f"{self._ids.getrandbits(144):036x}"
        group = Group(gang_id, shape.strategy, (shape.bundle,) * count, members)
        for one in members:
            one.gang = group
        self._ray.scheduler.submit_group(group)

    def _request(self, shape: WorkShape, count: int, stands_s: float) -> None:
        """Ask for resources, as `request_resources()` does: the last call counts, and only that."""
        self._constraints += 1
        number = self._constraints

        def take_back() -> None:
            if self._constraints == number:
                self._ray.constraint = None

        self._ray.constraint = Constraint((Demand(shape.bundle, count),))
        self._agenda.after(stands_s, take_back)
