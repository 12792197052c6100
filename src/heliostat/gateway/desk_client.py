"""A synchronous client of the owner's desk: standard library only, every request with a deadline."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heliostat.api import wire
from heliostat.api.transport import NobodyListens, SocketTransport
from heliostat.ports.errors import HeliostatError

REQUEST_TIMEOUT_S = 40.0


class GatewayNotRunning(HeliostatError):
    """No gateway of the cluster listens on this host."""


class GatewayRefused(HeliostatError):
    """The gateway can't do what was asked; the text is its own."""


class DeskClient:
    """One cluster's gateway. Every method raises HeliostatError."""

    def __init__(self, socket_path: Path, *, cluster: str) -> None:
        self._way = SocketTransport(socket_path)
        self._cluster = cluster

    def status(self) -> dict[str, Any]:
        return self._exchange("GET", "/status", None)

    def revoke(self, who: str) -> dict[str, Any]:
        return self._exchange("POST", "/revoke", {"who": who})

    def revoke_token(self, token: str | None) -> dict[str, Any]:
        """Revoke a caller's token; None is the gateway's own."""
        return self._exchange("POST", "/revoke", {"own": True} if token is None else {"token": token})

    def let_back(self, who: str) -> dict[str, Any]:
        return self._exchange("POST", "/let-back", {"who": who})

    def _exchange(self, method: str, path: str, body: Mapping[str, object] | None) -> dict[str, Any]:
        content = None if body is None else wire.dumps(body)
        try:
            status, answer = self._way.exchange(method, path, body=content, timeout_s=REQUEST_TIMEOUT_S)
        except NobodyListens as error:
            raise GatewayNotRunning(
                f"no gateway of {self._cluster} answers on this host: `heliostat gateway FILE` starts one; "
                "if it runs on another login node, ask it there"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            text = f"the gateway of {self._cluster} did not answer: {str(error) or type(error).__name__}"
            raise GatewayNotRunning(text) from error
        if status >= 500 and not answer.startswith(b"{"):
            raise GatewayRefused(
                f"the gateway of {self._cluster} failed at this (HTTP {status}); its log says where"
            )
        value = wire.loads(answer)
        if status >= 400:
            raise GatewayRefused(str(value.get("error", f"the gateway answered HTTP {status}")))
        return value
