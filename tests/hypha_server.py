"""A real Hypha server on loopback for tests, and the tokens of its users.

The server takes an HS256 token that is signed with its own secret for a signed-in user's, so tests make
users as they need them. Without an installed server the tests are skipped with the reason, except in CI,
where they fail.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.real_head import free_port
from tools import hypha_server

READY_S = 60.0
"""It takes some 5 s; a busy machine may take its time."""
END_S = 10.0
POLL_S = 0.05
HOUR_S = 3600.0
ISSUER = "https://amun.ai/"
AUDIENCE = "https://amun-ai.eu.auth0.com/api/v2/"


def why_missing() -> str | None:
    """Return None if the server is installed, or why set-up could not get it."""
    if _python().exists():
        return None
    reason = Path(sys.prefix) / hypha_server.MISSING
    return reason.read_text().strip() if reason.exists() else "no Hypha server: `make integration` gets it"


def needed() -> None:
    """Skip the test that runs, unless there is a server; in CI there has to be one."""
    why = why_missing()
    if why is not None and os.environ.get("CI") != "true":
        pytest.skip(why)
    assert why is None, why


def _python() -> Path:
    return hypha_server.place("{}.{}".format(*sys.version_info)) / "bin" / "python"


@dataclass
class HyphaServer:
    """A server that runs, or ran: its address stays. `secret` signs tokens and may be changed meanwhile."""

    folder: Path
    port: int
    secret: str = field(repr=False)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def token(self, user: str, *, email: str | None = None, **claims: Any) -> str:
        """Return a token of `user` for `ws-user-USER`, where it has all rights; `claims` replace others."""
        workspace = f"ws-user-{user}"
        return signed(
            self.secret,
            {
                "sub": user,
                "scope": f"ws:{workspace}#a wid:{workspace}",
                "iss": ISSUER,
                "aud": AUDIENCE,
                "iat": time.time(),
                "exp": time.time() + HOUR_S,
                "gty": "client-credentials",
                f"{ISSUER}email": email or f"{user}@example.org",
                f"{ISSUER}roles": [],
                **claims,
            },
        )

    def start(self) -> None:
        """Start it and wait until it is ready."""
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(self._command(), stdout=log, stderr=log, env=self._environment())
        until_s = time.monotonic() + READY_S
        while not self._is_ready():
            assert self.process.poll() is None, self.words()
            assert time.monotonic() < until_s, self.words()
            time.sleep(POLL_S)

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(END_S)

    def words(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")[-5000:]

    def _command(self) -> list[str]:
        own = ["--server-id=test", "--host=127.0.0.1", f"--port={self.port}", f"--public-base-url={self.url}"]
        return [str(_python()), "-m", "hypha.server", *own, f"--cache-dir={self.folder / 'cache'}"]

    def _environment(self) -> Mapping[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return kept | {"HYPHA_JWT_SECRET": self.secret, "HYPHA_LOGLEVEL": "ERROR"}

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health/readiness", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def hypha_server_in(folder: Path) -> Iterator[HyphaServer]:
    """Run a server while the block runs."""
    needed()
    folder.mkdir(parents=True, exist_ok=True)
    server = HyphaServer(folder, free_port(), secrets.token_hex(16))
    try:
        server.start()
        yield server
    finally:
        server.kill()


def signed(secret: str, claims: Mapping[str, Any]) -> str:
    """Return a JSON Web Token, signed with HS256."""
    head = _part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    body = f"{head}.{_part(json.dumps(claims).encode())}"
    return f"{body}.{_part(hmac.digest(secret.encode(), body.encode(), hashlib.sha256))}"


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
