"""What Ray is told of one round. Pure."""

from __future__ import annotations

from collections import Counter

from heliostat.control.memory import Memory
from heliostat.model.plan import Launch, Release
from heliostat.ports.cluster import RoundReport


def round_report(memory: Memory) -> RoundReport:
    """Return the report of the round whose plan `memory` holds."""
    launched: Counter[str] = Counter()
    released: Counter[str] = Counter()
    causes: dict[str, str] = {}
    for action in memory.plan.actions:
        if isinstance(action, Launch):
            launched[action.node_type] += action.count
        elif isinstance(action, Release):
            node_type = memory.intents[action.instance_id].node_type
            released[node_type] += 1
            causes[node_type] = action.reason.why.value
    return RoundReport(
        plan=memory.plan,
        instances=memory.instances,
        failures=memory.history.failures,
        launched=launched,
        released=released,
        release_causes=causes,
        infeasible=tuple(one.wanted for one in memory.plan.infeasible),
    )
