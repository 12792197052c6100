"""The claims of instances that are gone for good leave the head's store, once the head answers."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from heliostat.ports.cluster import Cluster
from heliostat.ports.errors import ClusterError

LEFT_MOST = 10_000
"""More are not remembered for a head that is silent: each is a few bytes there, and no id is used again."""

log = structlog.get_logger(__name__)


class Claims:
    """Remembers which claims are to go. A crash forgets them, which costs the head's store a few bytes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._left: list[str] = []

    async def delete(self, gone: Sequence[str], *, answers: bool) -> None:
        """Delete the claims of `gone` and those that are left; later where the head does not answer."""
        self._left = [*self._left, *gone][-LEFT_MOST:]
        if not self._left or not answers:
            return
        try:
            await self._cluster.forget(self._left)
        except ClusterError:
            log.debug("claims not deleted yet", instances=self._left)
        else:
            self._left = []
