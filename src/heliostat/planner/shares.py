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
    asking = [demand.bundle for demand in ray.demands if SCARCE & demand.bundle.resources.by_name.keys()]
    if not asking:
        return {}
    found = {}
    for node in ray.nodes:
        if node.status is NodeStatus.RUNNING and SCARCE & node.available.by_name.keys():
            asked = _promised(node, asking)
            if asked:
                found[node.node_id] = _followed(history.shares.get(node.node_id), node, asked)
    return found


def _promised(node: RayNode, asking: Iterable[Bundle]) -> frozenset[tuple[str, int]]:
    fitting = (one for one in asking if one.resources.fits_in(node.available) and one.allows(node.labels))
    pairs = (pair for one in fitting for pair in one.resources if pair[0] in SCARCE)
    return frozenset((name, amount) for name, amount in pairs if _unsure(node, name, amount))


def _unsure(node: RayNode, name: str, amount: int) -> bool:
    """Say whether the node's sum may mislead: about a share where anything is used, since shares may be in
    use; about whole devices only where the sum shows that they are."""
    free = node.available.get(name)
    return free % SCALE > 0 or (amount % SCALE > 0 and free < node.total.get(name))


def _followed(known: Shares | None, node: RayNode, asked: frozenset[tuple[str, int]]) -> Shares:
    if known is None or known.available != node.available or not known.asked & asked:
        return Shares(node.available, asked)
    return Shares(node.available, known.asked & asked, known.reports + 1)
