"""A gateway over stand-ins for rules and cluster, and who calls it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from heliostat.model.gateway import CallLimits, Right
from tests.gateway_parts import EVERYTHING, Gateway, RulesByName, WorkOnCall, context_of, gateway

MAY = {
    "ada@example.org": frozenset({Right.CALL, Right.RUN}),
    "bob@example.org": frozenset({Right.CALL, Right.RUN}),
    "root@example.org": EVERYTHING,
}


ADA, BOB, ROOT, STRANGER = map(context_of, ("ada", "bob", "root", "eve"))


def made(folder: Path, work: WorkOnCall | None = None, **limits: Any) -> Gateway:
    return gateway(folder, RulesByName(MAY, CallLimits(**limits)), work or WorkOnCall())


async def ended(one: Gateway) -> None:
    """Wait until nothing holds a slot."""
    async with asyncio.timeout(10):
        while one.rules.running:
            await asyncio.sleep(0)
