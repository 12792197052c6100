"""Waiting for a head that was just started, within a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from heliostat.ports.errors import ClusterUnreachable, StrangerCluster
from heliostat.raylink.reader import ClusterFacts, GcsReader

LOOK_EVERY_S = 0.1
LOOK_DEADLINE_S = 1.0


@dataclass(frozen=True)
class HeadReady:
    """A head that answers. `node_ip` is how other hosts reach it, `log_dir` where its session's logs
    are, on the head's host."""

    address: str
    session_name: str
    node_id: str
    node_ip: str
    ray_version: str
    python_version: str
    dashboard_url: str
    log_dir: str


def wait_until_ready(
    address: str,
    *,
    token: str,
    temp_dir: str,
    deadline_s: float,
    alive: Callable[[], bool] = lambda: True,
) -> HeadReady:
    """Return when the head's node is up; `dashboard_url` is empty if it is not there yet.

    `deadline_s` is in seconds from now; `alive` says whether the head's process still runs.
    Raises ClusterUnreachable when it is late or has ended, StrangerCluster when another
    cluster answers at `address` (its token or its session is not this head's).
    """
    until_s = time.monotonic() + deadline_s
    last = "nothing answers"
    while time.monotonic() < until_s:
        if not alive():
            raise ClusterUnreachable(f"the head at {address} ended while it started: {last}")
        try:
            with GcsReader(address, token, deadline_s=LOOK_DEADLINE_S) as reader:
                facts = reader.facts()
        except ClusterUnreachable as error:
            last = str(error)
        else:
            _check_session(address, facts, temp_dir)
            # The dashboard may take longer, or fail, and the cluster works all the same.
            if facts.head_node_id:
                return _ready(address, facts, temp_dir)
            last = "its GCS answers, its node is not there yet"
        time.sleep(LOOK_EVERY_S)
    raise ClusterUnreachable(f"the head at {address} was not ready within {deadline_s:g} s: {last}")


def session_log_dir(temp_dir: str, session_name: str) -> str:
    return str(Path(temp_dir) / session_name / "logs")


def _check_session(address: str, facts: ClusterFacts, temp_dir: str) -> None:
    # With one token per user, another cluster of ours on this port would accept it too.
    if facts.session_name and not (Path(temp_dir) / facts.session_name).is_dir():
        raise StrangerCluster(
            f"another Ray cluster answers at {address} (session {facts.session_name}, not in {temp_dir})"
        )


def _ready(address: str, facts: ClusterFacts, temp_dir: str) -> HeadReady:
    return HeadReady(
        address=address,
        session_name=facts.session_name,
        node_id=facts.head_node_id,
        node_ip=facts.head_ip,
        ray_version=facts.ray_version,
        python_version=facts.python_version,
        dashboard_url=facts.dashboard_url,
        log_dir=session_log_dir(temp_dir, facts.session_name),
    )
