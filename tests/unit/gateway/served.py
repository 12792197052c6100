"""A gateway's desk behind a real socket, with a Hypha side that only takes notes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from heliostat.api.server import serve
from heliostat.gateway.desk import Desk, create_app
from heliostat.gateway.rules.gate import Gate, open_gate
from heliostat.model.gateway import GatewaySettings, Right
from heliostat.ports.errors import HeliostatError
from tests.unit.gateway.people import NOW_S, allowance


class FakeServer:
    def __init__(self) -> None:
        self.revoked: list[str | None] = []
        self.error: HeliostatError | None = None
        self.connected = True
        self.troubles: dict[str, Any] = {"problem": None, "driver": True, "functions_problem": None}

    def facts(self) -> Mapping[str, Any]:
        return {
            "connected": self.connected,
            **self.troubles,
            "server_url": "https://hypha.example.org",
            "workspace": "lab",
            "service": "lab/gateway:heliostat",
            "token_expires_at_s": NOW_S + 7200.0,
        }

    async def revoke_token(self, token: str | None) -> None:
        if self.error is not None:
            raise self.error
        self.revoked.append(token)


@contextlib.contextmanager
def desk(folder: Path, socket_path: Path) -> Iterator[tuple[Gate, FakeServer]]:
    """Serve a gate that keeps its files in `folder` from a thread of its own while the block runs."""
    loop, started, ended = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    server, gates = FakeServer(), list[Gate]()

    async def run() -> None:
        settings = GatewaySettings("https://hypha.example.org", (allowance(Right.CALL),))
        gate = open_gate(settings, folder, now_s=lambda: NOW_S)
        gates.append(gate)
        about = {"cluster_name": "demo", "metrics_port": 9100}
        async with serve(create_app(Desk(gate, server, about)), socket_path):
            started.set()
            await ended.wait()
        gate.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert started.wait(10), "the desk did not start"
    try:
        yield gates[0], server
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
        assert not thread.is_alive(), "the desk did not stop"
        loop.close()
