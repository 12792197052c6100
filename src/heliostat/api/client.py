"""A synchronous client of the control API: standard library only, every call with a deadline."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from heliostat.api import wire
from heliostat.api.transport import NobodyListens, NotReached, RelayTransport, SocketTransport, Transport
from heliostat.api.wire import WireError
from heliostat.model.report import StatusReport
from heliostat.ports.errors import ConfigError, HeliostatError, Refused
from heliostat.ports.journal import Event, Lifetime, ProviderCall

CALL_TIMEOUT_S = 10.0
WRITE_TIMEOUT_S = 40.0


class NotRunning(HeliostatError):
    """No controller listens: the cluster is down, or its controller is being restarted."""


class NoAnswer(HeliostatError):
    """A controller listens, but did not answer in time or broke the connection."""


class ControllerClient:
    """One cluster's controller. Raises NotRunning, NoAnswer, Refused, WireError.

    `way` is its socket's path where it runs on this host, else the way there. Where nobody listens,
    `last_error` says why it does not run, if that is known, else `absence`, in place of the usual.
    """

    def __init__(
        self,
        way: Path | str | Transport,
        *,
        cluster: str = "the cluster",
        absence: str = "",
        last_error: Callable[[], str] = str,
    ) -> None:
        self._way = SocketTransport(way) if isinstance(way, str | Path) else way
        self.cluster = cluster
        self._absence = absence
        self._last_error = last_error

    def close(self) -> None:
        """End what a way to another host has left running; the next request makes a new one."""
        if isinstance(self._way, RelayTransport):
            self._way.close()

    def status(self, *, timeout_s: float = CALL_TIMEOUT_S) -> StatusReport:
        return wire.status_from(self._call("GET", "/status", timeout_s=timeout_s))

    def explain(self, subject: str | None = None) -> dict[str, Any]:
        return self._call("GET", _path("/explain", id=subject))

    def events(self, *, after: int = 0, limit: int = 100, instance: str | None = None) -> list[Event]:
        path = _path("/events", after=after, limit=limit, instance=instance)
        return wire.events_from(self._call("GET", path))

    def calls(self, *, limit: int = 100) -> list[ProviderCall]:
        return wire.calls_from(self._call("GET", _path("/calls", limit=limit)))

    def lifetimes(self, *, limit: int = 100) -> list[Lifetime]:
        return wire.lifetimes_from(self._call("GET", _path("/lifetimes", limit=limit)))

    def cost(self) -> dict[str, Any]:
        return self._call("GET", "/cost")

    def add(self, node_type: str | None = None, count: int = 1) -> dict[str, Any]:
        return self._post("/add", {"node_type": node_type, "count": count})

    def remove(self, instance: str, *, deadline_s: float | None = None) -> dict[str, Any]:
        return self._post("/remove", {"id": instance, "deadline_s": deadline_s})

    def protect(self, instance: str, *, on: bool = True) -> dict[str, Any]:
        return self._post("/protect", {"id": instance, "on": on})

    def pause(self, *, on: bool = True) -> dict[str, Any]:
        return self._post("/pause", {"on": on})

    def apply(self) -> dict[str, Any]:
        return self._post("/apply", {})

    def down(self) -> dict[str, Any]:
        return self._post("/down", {})

    def provided(self) -> dict[str, Any]:
        """Return what Ray's own autoscaler is told is there."""
        return self._call("GET", "/ray/instances")

    def provide(self, node_type: str, count: int) -> dict[str, Any]:
        return self._post("/ray/create", {"node_type": node_type, "count": count})

    def take_back(self, instance_ids: Sequence[str]) -> dict[str, Any]:
        return self._post("/ray/terminate", {"instance_ids": list(instance_ids)})

    def _post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        return self._call("POST", path, body=body, timeout_s=WRITE_TIMEOUT_S)

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, object] | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> dict[str, Any]:
        content = None if body is None else wire.dumps(body)
        try:
            status, answer = self._way.exchange(method, path, body=content, timeout_s=timeout_s)
        except NobodyListens as error:
            raise NotRunning(self._not_running()) from error
        except TimeoutError as error:
            raise NoAnswer(f"{self._silent()} within {timeout_s:g} s; {_SEE_LOG}") from error
        except NotReached as error:
            raise NoAnswer(f"{self._silent()}: {error}") from error
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"{self._silent()}: {type(error).__name__} ({error}); {_SEE_LOG}") from error
        return _checked(status, answer)

    def _silent(self) -> str:
        return f"the controller of {self.cluster} did not answer"

    def _not_running(self) -> str:
        error = self._last_error()
        if error:
            return f"the controller of {self.cluster} can't run: {error}"
        return self._absence or (
            f"no controller of {self.cluster} answers here: `heliostat list` shows what runs, "
            "`heliostat up FILE` starts a cluster"
        )


_SEE_LOG = "controller.log in the cluster's state folder says what it does"


def _path(path: str, **query: object) -> str:
    given = {key: value for key, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _checked(status: int, answer: bytes) -> dict[str, Any]:
    if status >= 500 and not answer.startswith(b"{"):
        raise NoAnswer(f"the controller answered HTTP {status}; {_SEE_LOG}")
    value = wire.loads(answer)
    if status < 400:
        return value
    if status == 404 and value.get("error") == "Not Found":
        # The path itself is unknown there: what it knows and does not have, it says in words.
        raise WireError("the controller is of another version of heliostat, which does not know this yet")
    text = str(value.get("error") or f"the controller answered HTTP {status}")
    code = str(value.get("code") or "refused")
    if code == "invalid" and "\n" in text:
        raise ConfigError(text.splitlines())
    raise Refused(code, text)
