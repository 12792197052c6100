"""Shares of devices that a node's sum promises: believed first, doubted when they stay pending.

Ray reports sums: 0.4 free on each of two GPUs looks like room for 0.6. To guess the worst at once would
launch too much, so a node is believed until such demand outlives reports in which nothing changed there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from heliostat.model.demand import Bundle
from heliostat.model.history import History, Shares
from heliostat.model.instance import NodeStatus, RayNode
from heliostat.model.resources import SCALE, Resources
from heliostat.model.snapshot import RayState
from heliostat.planner.limits import SCARCE

Asking = dict[str, dict[int, list[Bundle]]]
"""The bundles that wait, by each device and amount of it that they ask for."""


def shares_of(history: History, ray: RayState) -> Mapping[str, Shares]:
    """Return what nodes promise by their sums and have not kept so far; call once per report."""
    several = (ray.demands, *(gang.demands for gang in ray.gangs))
    asking = _asking(demand.bundle for demands in several for demand in demands)
    if not asking:
        return {}
    found = {}
    for node in ray.nodes:
        asked = _promised(node, asking) if node.status is NodeStatus.RUNNING else frozenset()
        if asked:
            found[node.node_id] = _followed(history.shares.get(node.node_id), node, asked)
    return found


def _asking(bundles: Iterable[Bundle]) -> Asking:
    found: Asking = {}
    for one in bundles:
        for name, amount in one.resources:
            if name in SCARCE:
                found.setdefault(name, {}).setdefault(amount, []).append(one)
    return found


def _promised(node: RayNode, asking: Asking) -> frozenset[tuple[str, int]]:
    """Return what the node's sum has room for, where it may mislead: some is used, maybe by shares."""
    free = [one for one in node.available.amounts if one[0] in asking]
    misleading = [(name, most) for name, most in free if most % SCALE or most < node.total.get(name)]
    return frozenset(
        (name, amount)
        for name, most in misleading
        for amount, bundles in asking[name].items()
        if amount <= most and any(_fits(one, node) for one in bundles)
    )


def _fits(bundle: Bundle, node: RayNode) -> bool:
    return bundle.resources.fits_in(node.available) and bundle.allows(node.labels)


def _followed(known: Shares | None, node: RayNode, asked: frozenset[tuple[str, int]]) -> Shares:
    available = devices_free(node)
    if known is None or known.available != available or not known.asked & asked:
        return Shares(available, asked)
    return Shares(available, known.asked & asked, known.reports + 1)


def devices_free(node: RayNode) -> Resources:
    """Return what a node has free of devices alone: the rest may change with every report."""
    return Resources(tuple(pair for pair in node.available if pair[0] in SCARCE))
