"""Which work must have been done in the end: a test that is sure, and simple, and knows no planner."""

from __future__ import annotations

from heliostat.model.demand import GangStrategy
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.sim.scenario import BackendScenario, Scenario
from heliostat.sim.world.work import Work

LEASES_PER_WORK = 4.0
"""Work that takes more than a quarter of a lease may be unlucky for long."""

ROOM_SPARE = 1.5
"""A batch system gets by and by to what other users leave, if that is so much more than is wanted."""


def is_feasible(work: Work, scenario: Scenario) -> bool:
    """Say whether the cluster can surely do the work, floors and other users' load left in place.

    False where it is not sure: then nothing is demanded of it.
    """
    bundle, wanted = work.bundle.resources, len(work.gang.bundles) if work.gang else 1
    if work.gang and work.gang.strategy is GangStrategy.STRICT_PACK:
        bundle, wanted = bundle.times(wanted), 1
    fitting = [one for one in scenario.policy.node_types if _holds(one, work, bundle, scenario)]
    # Nobody knows how long a task will take, so it may go to where it can't be finished, again and again.
    if any(_ends_too_soon(one, work, scenario) for one in fitting):
        return False
    return any(_room(one, scenario) >= wanted for one in fitting)


def _holds(node_type: NodeType, work: Work, bundle: Resources, scenario: Scenario) -> bool:
    backend = backend_of(node_type, scenario)
    if node_type.name in backend.dead_types or not work.bundle.allows(node_type.labels):
        return False
    return bundle.fits_in(node_type.resources)


def _ends_too_soon(node_type: NodeType, work: Work, scenario: Scenario) -> bool:
    lease_s = backend_of(node_type, scenario).lease_s
    return lease_s is not None and work.work_s + work.pins_s > lease_s / LEASES_PER_WORK


def _room(node_type: NodeType, scenario: Scenario) -> int:
    """Return how many nodes of the type can surely be had, whatever else has to be there."""
    policy, backend = scenario.policy, backend_of(node_type, scenario)
    others = [one for one in policy.node_types if one is not node_type]
    floors = sum(one.min_workers for one in others)
    room = [node_type.max_workers, policy.max_workers - floors]
    # What others hold may count against our user's limit as well.
    taken = floors + backend.strangers
    room.append(int((backend.machines - taken) * (1 - backend.others) / ROOM_SPARE))
    if backend.submitted_most is not None:
        room.append(backend.submitted_most - taken)
    if policy.max_cost_usd_per_h is not None and node_type.price_usd_per_h:
        floor_usd = sum(one.min_workers * one.price_usd_per_h for one in others)
        room.append(int((policy.max_cost_usd_per_h - floor_usd) / node_type.price_usd_per_h))
    return min(room)


def backend_of(node_type: NodeType, scenario: Scenario) -> BackendScenario:
    return next(one for one in scenario.backends if one.name == node_type.backend)
