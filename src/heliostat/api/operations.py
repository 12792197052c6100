"""What the control API asks of the loop; `control` fulfils it, tests do with a fake."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from heliostat.model.report import StatusReport
from heliostat.ports.journal import Event, Lifetime, ProviderCall


class Operations(Protocol):
    """Each call returns soon: what takes time is journalled and done by later rounds.

    A request that can't be met raises `ports.errors.Refused` with its code and one sentence.
    """

    async def status(self) -> StatusReport: ...

    async def explain(self, subject: str | None, /) -> dict[str, Any]:
        """Return `{"subject", "kind", "lines", "facts"}`; without id, of the whole cluster."""
        ...

    async def events(self, after: int, limit: int, instance: str | None, /) -> Sequence[Event]:
        """Return the newest `limit` events after sequence number `after`, oldest first."""
        ...

    async def calls(self, limit: int, /) -> Sequence[ProviderCall]:
        """Return what the backends were asked last, oldest first."""
        ...

    async def lifetimes(self, limit: int, /) -> Sequence[Lifetime]:
        """Return the times of the instances that were asked for last, oldest first."""
        ...

    async def cost(self) -> dict[str, Any]:
        """Return `{"rows": [UsageRow…], "total": {…}}`."""
        ...

    async def add(self, node_type: str | None, count: int, /) -> dict[str, Any]:
        """Return `{"instance_ids", "names", "node_type"}` once it is journalled."""
        ...

    async def remove(self, instance: str, deadline_s: float | None, /) -> dict[str, Any]: ...

    async def protect(self, instance: str, on: bool, /) -> dict[str, Any]: ...

    async def pause(self, on: bool, /) -> dict[str, Any]: ...

    async def apply(self) -> dict[str, Any]:
        """Take the state folder's `config.yaml` as it is now, and try again what waits after failures.

        Returns `{"changes": [sentences], "again": [sentences]}`.
        """
        ...

    async def down(self) -> dict[str, Any]: ...


class Provision(Protocol):
    """What Ray's own autoscaler asks for where it decides (`provider.autoscaler: ray`)."""

    async def instances(self) -> dict[str, Any]:
        """Return `{"head": row, "instances": [rows]}`.

        A row has `instance_id`, `node_type`, `running`, `node_id`, `ip`.
        """
        ...

    async def create(self, node_type: str, count: int, /) -> dict[str, Any]:
        """Return `{"instance_ids", "refused", "why"}` once it is journalled; the launch comes later."""
        ...

    async def terminate(self, instance_ids: Sequence[str], /) -> dict[str, Any]: ...
