"""A mutant: one deliberate bug of the production code, and by which check the simulator tells it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest

from heliostat.sim.checks.suite import Violation
from heliostat.sim.run import run
from heliostat.sim.seeds import scenario

Break = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Mutant:
    """`name` is the bug's, `says` what it does in one sentence, `breaks` puts it in place. `seed` tells it,
    by one of `checks`; None where a scenario of tests/unit/sim/pinned.py does."""

    name: str
    says: str
    seed: int | None
    checks: frozenset[str]
    breaks: Break

    def found_by(self, seed: int) -> Violation | None:
        """Run one seed on the broken code; return the rule that it broke."""
        with pytest.MonkeyPatch.context() as patch:
            self.breaks(patch)
            return run(scenario(seed)).violation

    def search(self, seeds: Iterable[int]) -> tuple[int, Violation] | None:
        """Return the first of the seeds that tells it, and how; None where none does."""
        found = ((seed, self.found_by(seed)) for seed in seeds)
        return next(((seed, one) for seed, one in found if one is not None), None)


class Catalogue(list[Mutant]):
    """Mutants of one part of the code, in the order in which they are written down."""

    def mutant(self, *, seed: int | None, checks: str) -> Callable[[Break], Break]:
        """Take in a function: its name is the mutant's, its docstring's first line what the bug does."""

        def take(breaks: Break) -> Break:
            says = (breaks.__doc__ or "").partition("\n")[0]
            name = breaks.__name__.replace("_", " ")
            self.append(Mutant(name, says, seed, frozenset(checks.split()), breaks))
            return breaks

        return take
