"""The control API: HTTP and JSON over a unix socket that only its owner can open.

Starlette and uvicorn, embedded in the controller's own event loop: no signal handlers,
no threads, no log lines for requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.config import Config
from uvicorn.server import Server

from heliostat.api import wire
from heliostat.api.operations import Operations, Provision
from heliostat.ports.errors import ConfigError, HeliostatError, Refused

BODY_LIMIT_BYTES = 64 * 1024
EVENTS_LIMIT = 10_000
ADD_LIMIT = 10_000
OPERATION_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 2.0
CONNECTIONS_LIMIT = 64
SOCKET_PATH_BYTES = 107

STATUS_OF = {"not_found": 404, "conflict": 409, "invalid": 400, "refused": 403}

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]


class SocketError(HeliostatError):
    """The control socket can't be made where it belongs."""


def create_app(operations: Operations, provision: Provision | None = None) -> Starlette:
    """Return the ASGI app over `operations`. Every answer is a JSON object."""
    reads = _read_routes(operations)
    writes = _write_routes(operations)
    if provision is not None:
        reads |= {"/ray/instances": _provided_instances(provision)}
        writes |= _provision_routes(provision)
    routes = [Route(path, handler, methods=["GET"]) for path, handler in reads.items()]
    routes += [Route(path, handler, methods=["POST"]) for path, handler in writes.items()]
    return Starlette(
        routes=routes,
        exception_handlers={
            Refused: _refused,
            HeliostatError: _failed,
            TimeoutError: _too_slow,
            HTTPException: _http_error,
            Exception: _broken,
        },
    )


def _read_routes(operations: Operations) -> dict[str, Handler]:
    async def status(_: Request) -> Response:
        return await _answer(operations.status())

    async def explain(request: Request) -> Response:
        return await _answer(operations.explain(request.query_params.get("id") or None))

    async def events(request: Request) -> Response:
        query = request.query_params
        after = _number(query, "after", default=0, most=2**62)
        limit = _number(query, "limit", default=100, most=EVENTS_LIMIT)
        async with asyncio.timeout(OPERATION_TIMEOUT_S):
            found = await operations.events(after, limit, query.get("instance") or None)
        return _json({"events": list(found)})

    async def calls(request: Request) -> Response:
        limit = _number(request.query_params, "limit", default=100, most=EVENTS_LIMIT)
        async with asyncio.timeout(OPERATION_TIMEOUT_S):
            return _json({"calls": list(await operations.calls(limit))})

    async def lifetimes(request: Request) -> Response:
        limit = _number(request.query_params, "limit", default=100, most=EVENTS_LIMIT)
        async with asyncio.timeout(OPERATION_TIMEOUT_S):
            return _json({"lifetimes": list(await operations.lifetimes(limit))})

    async def cost(_: Request) -> Response:
        return await _answer(operations.cost())

    return {
        "/status": status,
        "/explain": explain,
        "/events": events,
        "/calls": calls,
        "/lifetimes": lifetimes,
        "/cost": cost,
    }


def _write_routes(operations: Operations) -> dict[str, Handler]:
    async def add(request: Request) -> Response:
        body = await _body(request)
        node_type = _field(body, "node_type", str, None)
        count = _field(body, "count", int, 1)
        if not 1 <= count <= ADD_LIMIT:
            raise Refused("invalid", f"count is {count}; 1 to {ADD_LIMIT} are allowed")
        return await _answer(operations.add(node_type, count))

    async def remove(request: Request) -> Response:
        body = await _body(request)
        deadline_s = _field(body, "deadline_s", (int, float), None)
        if deadline_s is not None and deadline_s < 0:
            raise Refused("invalid", f"deadline_s is {deadline_s}; it must not be negative")
        return await _answer(operations.remove(_named(body), deadline_s))

    async def protect(request: Request) -> Response:
        body = await _body(request)
        return await _answer(operations.protect(_named(body), _field(body, "on", bool, True)))

    async def pause(request: Request) -> Response:
        return await _answer(operations.pause(_field(await _body(request), "on", bool, True)))

    async def apply(request: Request) -> Response:
        await _body(request)
        return await _answer(operations.apply())

    async def down(request: Request) -> Response:
        await _body(request)
        return await _answer(operations.down(), status=202)

    return {
        "/add": add,
        "/remove": remove,
        "/protect": protect,
        "/pause": pause,
        "/apply": apply,
        "/down": down,
    }


def _provided_instances(provision: Provision) -> Handler:
    async def instances(_: Request) -> Response:
        return await _answer(provision.instances())

    return instances


def _provision_routes(provision: Provision) -> dict[str, Handler]:
    async def create(request: Request) -> Response:
        body = await _body(request)
        node_type, count = _field(body, "node_type", str, ""), _field(body, "count", int, 1)
        return await _answer(provision.create(node_type, count))

    async def terminate(request: Request) -> Response:
        ids = _field(await _body(request), "instance_ids", list, [])
        if not all(isinstance(one, str) for one in ids):
            raise Refused("invalid", "instance_ids: a list of text is expected")
        return await _answer(provision.terminate(ids))

    return {"/ray/create": create, "/ray/terminate": terminate}


async def _answer(operation: Awaitable[object], *, status: int = 200) -> Response:
    async with asyncio.timeout(OPERATION_TIMEOUT_S):
        return _json(await operation, status=status)


def _json(value: object, *, status: int = 200) -> Response:
    return Response(wire.dumps(value), status_code=status, media_type="application/json")


def _error(text: str, *, code: str, status: int) -> Response:
    return _json({"error": text, "code": code}, status=status)


async def _body(request: Request) -> dict[str, Any]:
    """Return the request's JSON object; an empty body is an empty object."""
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > BODY_LIMIT_BYTES:
            raise HTTPException(413, f"the request is over {BODY_LIMIT_BYTES} bytes")
    try:
        return wire.loads(bytes(received)) if received else {}
    except wire.WireError as error:
        raise Refused("invalid", str(error)) from error


def _field(body: Mapping[str, Any], key: str, kind: type[T] | tuple[type, ...], default: Any) -> Any:
    """Return `body[key]`, checked: JSON's true is a Python int, so bool is asked for by name only."""
    value = body.get(key, default)
    if value is default:
        return value
    is_stray_bool = isinstance(value, bool) and kind is not bool
    if not isinstance(value, kind) or is_stray_bool:
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join(one.__name__ for one in kinds)
        raise Refused("invalid", f"{key} is {value!r}; {wanted} is expected")
    return value


def _named(body: Mapping[str, Any]) -> str:
    name: str = _field(body, "id", str, "")
    if not name:
        raise Refused("invalid", "id is missing: an instance's name or id is expected")
    return name


def _number(query: Mapping[str, str], key: str, *, default: int, most: int) -> int:
    text = query.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or int(text) > most:
        raise Refused("invalid", f"{key} is {text!r}; a whole number up to {most} is expected")
    return int(text)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _error(str(error), code=error.code, status=STATUS_OF.get(error.code, 403))


async def _failed(_: Request, error: Exception) -> Response:
    if isinstance(error, ConfigError):
        return _error(str(error), code="invalid", status=400)
    return _error(str(error), code="refused", status=503)


async def _too_slow(_: Request, __: Exception) -> Response:
    text = f"the controller did not finish this within {OPERATION_TIMEOUT_S:g} s"
    return _error(text, code="refused", status=503)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = "not_found" if error.status_code == 404 else "invalid"
    return _error(str(error.detail), code=code, status=error.status_code)


async def _broken(_: Request, error: Exception) -> Response:
    # Starlette raises it again afterwards, so that it is in the controller's log with its traceback.
    text = f"the controller failed at this ({type(error).__name__}); its log says where"
    return _error(text, code="refused", status=500)


class _Embedded(Server):  # type: ignore[misc]  # mypy is told not to look into uvicorn
    """uvicorn inside a loop that is not its own: the controller's signals stay the controller's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serve(app: Starlette, socket_path: Path) -> AsyncIterator[None]:
    """Serve `app` at `socket_path` while the block runs; requests in progress are finished at its end.

    The caller holds the cluster's lock: a socket file that lies there is a dead controller's and
    is replaced. Raises SocketError where the folder is open to others or the path is too long.
    """
    listener = _bind(socket_path)
    server = _Embedded(_config(app))
    task = asyncio.create_task(server.serve(sockets=[listener]), name="control API")
    try:
        yield
    finally:
        server.should_exit = True
        # uvicorn has its own limit for open requests; the rest here is its polling.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(task, STOP_TIMEOUT_S + 2.0)
        listener.close()
        socket_path.unlink(missing_ok=True)


def _config(app: Starlette) -> Config:
    return Config(
        app,
        loop="none",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS_LIMIT,
        timeout_graceful_shutdown=int(STOP_TIMEOUT_S),
    )


def _bind(socket_path: Path) -> socket.socket:
    _check_place(socket_path)
    socket_path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Nobody else can reach into the folder (0700), so the moment between bind and
        # chmod is no gap; changing the umask would be felt by the whole process.
        listener.bind(str(socket_path))
        os.chmod(socket_path, 0o600)
        listener.listen(CONNECTIONS_LIMIT)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise SocketError(f"no control socket can be made at {socket_path}: {error.strerror}") from error
    return listener


def _check_place(socket_path: Path) -> None:
    if len(os.fsencode(socket_path)) > SOCKET_PATH_BYTES:
        raise SocketError(
            f"the control socket's path is over {SOCKET_PATH_BYTES} bytes: {socket_path}; "
            "set HELIOSTAT_RUNTIME_DIR to a shorter folder"
        )
    try:
        folder = os.stat(socket_path.parent)
    except OSError as error:
        raise SocketError(f"{socket_path.parent} can't be used: {error.strerror}") from error
    if folder.st_uid != os.geteuid() or folder.st_mode & 0o077:
        raise SocketError(f"{socket_path.parent} must be yours alone: chmod 700 {socket_path.parent}")
