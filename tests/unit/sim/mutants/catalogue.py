"""All mutants, each under a name of its own."""

from __future__ import annotations

from tests.unit.sim.mutants.mutant import Mutant
from tests.unit.sim.mutants.of_failures import FAILURES
from tests.unit.sim.mutants.of_found import FOUND
from tests.unit.sim.mutants.of_loop import LOOP
from tests.unit.sim.mutants.of_people import PEOPLE
from tests.unit.sim.mutants.of_planner import PLANNER
from tests.unit.sim.mutants.of_ports import PORTS

MUTANTS: dict[str, Mutant] = {one.name: one for one in (*LOOP, *PLANNER, *FAILURES, *PEOPLE, *PORTS, *FOUND)}
