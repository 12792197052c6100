"""Shares of devices that a node's sum promises: believed first, doubted when they stay pending.

Ray reports sums: 0.4 free on each of two GPUs looks like room for 0.6. To guess the worst at once would
launch too much, so a node is believed until such demand outlives reports in which nothing changed there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from heliostat.model.demand import Bundle
from heliostat.model.history import History, Shares
from heliostat.model.instance import NodeStatus, RayNode
from heliostat.model.resources import SCALE
from heliostat.model.snapshot import RayState
from heliostat.planner.limits import SCARCE


def shares_of(history: History, ray: RayState) -> Mapping[str, Shares]:
    """Return what nodes promise by their sums and have not kept so far; call once per report."""
    asking = [demand.bundle for demand in ray.demands if _shares(demand.bundle)]
    if not asking:
        return {}
    found = {}
    for node in ray.nodes:
        if node.status is NodeStatus.RUNNING and _shared(node):
            asked = _promised(node, asking)
            if asked:
                found[node.node_id] = _followed(history.shares.get(node.node_id), node, asked)
    return found


def _shares(bundle: Bundle) -> frozenset[tuple[str, int]]:
    return frozenset((name, amount) for name, amount in bundle.resources if name in SCARCE and amount % SCALE)


def _shared(node: RayNode) -> bool:
    """Say whether some device of the node is used in part: only then can a sum mislead."""
    return any(amount % SCALE for name, amount in node.available if name in SCARCE)


def _promised(node: RayNode, asking: Iterable[Bundle]) -> frozenset[tuple[str, int]]:
    fitting = (one for one in asking if one.resources.fits_in(node.available) and one.allows(node.labels))
    return frozenset(pair for one in fitting for pair in _shares(one))


def _followed(known: Shares | None, node: RayNode, asked: frozenset[tuple[str, int]]) -> Shares:
    if known is None or known.available != node.available or not known.asked & asked:
        return Shares(node.available, asked)
    return Shares(node.available, known.asked & asked, known.reports + 1)
