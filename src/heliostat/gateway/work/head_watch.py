"""Sees that the head has gone, sooner than Ray tells its drivers.

Ray ends a driver only when it has not had the GCS for 60 s: until then what runs is lost in silence, and
new calls hang. Looked at from outside: whether the GCS takes connections, and whether the raylet holds its
socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

LOOK_S = 2.0
CONNECT_TIMEOUT_S = 2.0
SILENT_S = 10.0
"""For so long a busy login node may refuse connections."""
LISTENERS = Path("/proc/net/unix")


async def gone(address: str, raylet_socket: str) -> str:
    """Return once the head is gone, with why. `address` is the GCS's `host:port`."""
    answered_s = time.monotonic()
    while True:
        if not listens(raylet_socket, LISTENERS.read_text()):
            return "its raylet has ended"
        if await _answers(address):
            answered_s = time.monotonic()
        elif time.monotonic() - answered_s > SILENT_S:
            return f"its GCS has not taken a connection for {SILENT_S:g} s"
        await asyncio.sleep(LOOK_S)


def listens(socket: str, listeners: str) -> bool:
    """Say whether somebody holds the socket of that path, from what the kernel lists."""
    return not socket or any(line.endswith(f" {socket}") for line in listeners.splitlines())


async def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.close()
        return True
    return False
