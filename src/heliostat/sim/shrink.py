"""Make a failing scenario smaller while it fails the same check: what is left is what it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from heliostat.sim.run import Result, run
from heliostat.sim.scenario import BackendScenario, Scenario

RUNS_MOST = 300
"""So many runs are tried at most."""

WEATHER = ("preempts_per_h", "dies_per_h", "stockouts_per_h", "others", "lag_s", "strangers")
"""Numbers of a backend that are nothing when they are 0."""


def shrink(
    result: Result, scenario: Scenario, *, runs: Callable[[Scenario], Result] = run
) -> tuple[Scenario, Result]:
    """Return the smallest scenario that was found to break the same check, and its run.

    Greedy: each simplification that keeps the failure is kept, until none does any more.
    """
    assert result.violation is not None, "what does not fail can't fail in less"
    check, left = result.violation.check, RUNS_MOST
    smaller = True
    while smaller:
        smaller = False
        for candidate in _simpler(scenario, result):
            if left == 0:
                return scenario, result
            left -= 1
            found = runs(candidate)
            if found.violation is not None and found.violation.check == check:
                scenario, result, smaller = candidate, found, True
                break
    return scenario, result


def _simpler(scenario: Scenario, result: Result) -> Iterator[Scenario]:
    """Return simplifications, the ones that take most away first."""
    yield from _shorter(scenario, result)
    if scenario.faults:
        yield replace(scenario, faults={})
    for kind in scenario.faults:
        yield replace(scenario, faults={key: rate for key, rate in scenario.faults.items() if key != kind})
    for kind in scenario.people:
        yield replace(scenario, people={key: rate for key, rate in scenario.people.items() if key != kind})
    if scenario.shuffled:
        yield replace(scenario, shuffled=False)
    shapes = scenario.workload.shapes
    for shape in shapes if len(shapes) > 1 else ():
        less = tuple(one for one in shapes if one is not shape)
        yield replace(scenario, workload=replace(scenario.workload, shapes=less))
    yield from _fewer_types(scenario)
    for backend in scenario.backends:
        for one in _milder(backend):
            others = tuple(one if old is backend else old for old in scenario.backends)
            yield replace(scenario, backends=others)


def _shorter(scenario: Scenario, result: Result) -> Iterator[Scenario]:
    """End the safety phase earlier: at a half, or where it failed."""
    assert result.violation is not None
    for steps in (scenario.steps_most // 2, result.violation.step + 1):
        if 0 < steps < scenario.steps_most:
            yield replace(scenario, steps_most=steps)


def _fewer_types(scenario: Scenario) -> Iterator[Scenario]:
    policy = scenario.policy
    for node_type in policy.node_types if len(policy.node_types) > 1 else ():
        less = tuple(one for one in policy.node_types if one is not node_type)
        yield replace(scenario, spec=replace(scenario.spec, policy=replace(policy, node_types=less)))


def _milder(backend: BackendScenario) -> Iterator[BackendScenario]:
    for name in WEATHER:
        if getattr(backend, name):
            yield replace(backend, **{name: type(getattr(backend, name))(0)})
    if backend.lease_s is not None:
        yield replace(backend, lease_s=None)
    if backend.submitted_most is not None:
        yield replace(backend, submitted_most=None)
    if backend.throttles:
        yield replace(backend, throttles=False)
    if backend.dead_types:
        yield replace(backend, dead_types=frozenset())
