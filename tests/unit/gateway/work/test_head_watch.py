"""When the head counts as gone."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from heliostat.gateway.work import head_watch

LISTED = """Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 12345 /tmp/hel-1/session/sockets/raylet
0000000000000000: 00000003 00000000 00000000 0001 03 12346
"""


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_watch, "LOOK_S", 0.001)
    monkeypatch.setattr(head_watch, "SILENT_S", 0.01)


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/tmp/hel-1/session/sockets/raylet", True),
        ("/tmp/hel-1/session/sockets/raylet.1", False),
        ("/session/sockets/raylet", False),
        ("", True),
    ],
)
def test_who_listens(path: str, there: bool) -> None:
    assert head_watch.listens(path, LISTED) is there


async def test_a_raylet_that_ended(tmp_path: Path) -> None:
    assert await head_watch.gone("127.0.0.1:1", str(tmp_path / "raylet")) == "its raylet has ended"


async def test_a_gcs_that_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        watching = asyncio.create_task(head_watch.gone(address, ""))
        done, _ = await asyncio.wait([watching], timeout=0.05)
        assert not done
    assert "has not taken a connection" in await watching
