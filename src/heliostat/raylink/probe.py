"""Is a head alive at this address, and is it ours? Blocking and short, for the command line."""

from __future__ import annotations

from dataclasses import dataclass

from heliostat.model.instance import NodeStatus
from heliostat.ports.errors import ClusterUnreachable, StrangerCluster
from heliostat.raylink.reader import LOOK_DEADLINE_S, GcsReader


@dataclass(frozen=True)
class HeadProbe:
    """What was found. `ours` says whether uid and session are the expected ones; `detail` says
    in words why not. Versions are empty where nothing of ours answers."""

    alive: bool
    ours: bool
    detail: str = ""
    session_name: str = ""
    cluster_uid: str = ""
    ray_version: str = ""
    python_version: str = ""
    dashboard_url: str = ""
    nodes: int = 0


def probe_head(
    address: str,
    token: str,
    *,
    cluster_uid: str,
    session_name: str = "",
    deadline_s: float = LOOK_DEADLINE_S,
) -> HeadProbe:
    """Look once, for at most `deadline_s` per call; never raises for what the world does.

    An empty `session_name` means any session of that `cluster_uid`.
    """
    try:
        with GcsReader(address, token, deadline_s=deadline_s) as reader:
            facts = reader.facts()
    except ClusterUnreachable as error:
        return HeadProbe(alive=False, ours=False, detail=str(error))
    except StrangerCluster as error:
        return HeadProbe(alive=True, ours=False, detail=str(error))
    detail = stranger(address, facts.cluster_uid, cluster_uid) or (
        stranger_session(address, facts.session_name, session_name) if session_name else ""
    )
    return HeadProbe(
        alive=True,
        ours=not detail,
        detail=detail,
        session_name=facts.session_name,
        cluster_uid=facts.cluster_uid,
        ray_version=facts.ray_version,
        python_version=facts.python_version,
        dashboard_url=facts.dashboard_url,
        nodes=sum(node.status is not NodeStatus.DEAD for node in facts.state.nodes),
    )


def stranger(address: str, found: str, wanted: str) -> str:
    """Return why a uid is not ours, or nothing."""
    if found == wanted:
        return ""
    whose = f"it belongs to {found}" if found else "Heliostat did not start it"
    return f"the Ray cluster at {address} is not ours: {whose}"


def stranger_session(address: str, found: str, wanted: str) -> str:
    if found == wanted:
        return ""
    return f"the Ray cluster at {address} is another session ({found or 'none'}, ours is {wanted})"
