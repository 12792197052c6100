"""How a function of ours becomes one of Hypha's: nothing goes back but an answer.

Whatever a caller sends, and whatever breaks here, the caller gets `{"ok": true, "call_id", "value"}` or
`CallError.answer()`. Hypha's client would send a traceback with the owner's paths, to strangers too. Each
function is made anew for each service, because the client keeps rights by function object, and each is async,
because it runs others in the event loop, where they would hold up everybody.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.hypha.arguments import Arguments
from heliostat.gateway.hypha.ports import Context

log = structlog.get_logger(__name__)

CLOSED = "the gateway is going down; try again in a while"
CUT = "the gateway went down before it had the answer; what you asked for may have been done"
BROKEN = "the gateway has a defect; its owner's log has it under this call's id"


@dataclass(frozen=True)
class Call:
    """One call as it came in. `peer` is the client that waits for it."""

    call_id: str
    context: Context

    @property
    def peer(self) -> str:
        return str(self.context.get("from", ""))


@dataclass(frozen=True)
class Operation:
    """A function for callers: `run` takes a `Call` and its arguments, once they are checked.

    It returns an answer, or an async generator of what is streamed; it raises `CallError`.
    """

    name: str
    run: Callable[[Call, Any], Coroutine[Any, Any, Any]]
    arguments: type[Arguments]
    doc: str


def answer(call: Call, value: Any) -> dict[str, Any]:
    """Return what goes back for a call that ended well."""
    return {"ok": True, "call_id": call.call_id, "value": value}


def broken(call: Call, function: str, error: Exception) -> dict[str, Any]:
    """Log a defect of ours without what callers sent; return what the caller gets."""
    trace = "".join(traceback.format_exception(error))
    log.error("gateway_call_broke", call_id=call.call_id, function=function, trace=trace)
    return CallError(Code.INTERNAL, BROKEN).answer(call.call_id)


class Answering:
    """The calls that wait for an answer, whatever they are: none goes without when the gateway goes down."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    async def answered(self, run: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Return what `run` does; raises `CallError` also where the gateway goes down meanwhile."""
        if self._is_closed:
            raise CallError(Code.UNAVAILABLE, CLOSED)
        task = asyncio.create_task(run())
        self._waiting.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            waiting = asyncio.current_task()
            if not self._is_closed or (waiting is not None and waiting.cancelling()):
                raise
            raise CallError(Code.LOST, CUT) from None
        finally:
            self._waiting.discard(task)

    async def aclose(self, timeout_s: float) -> bool:
        """Let nothing more in, and end what has no answer in time; say whether anybody waited."""
        self._is_closed = True
        waiting = list(self._waiting)
        if not waiting:
            return False
        _, late = await asyncio.wait(waiting, timeout=timeout_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        return True


def exposed(
    operation: Operation, new_id: Callable[[], str], answering: Answering
) -> Callable[..., Awaitable[Any]]:
    """Return an async function that Hypha may call with anything, and that never raises an error."""

    async def function(*positional: Any, context: Context | None = None, **named: Any) -> Any:
        call = Call(new_id(), context or {})
        try:
            arguments = operation.arguments.bind(positional, named)
            return await answering.answered(partial(operation.run, call, arguments))
        except CallError as error:
            return error.answer(call.call_id)
        except Exception as error:  # noqa: BLE001 -- the guard of the service: its trace is for the owner
            return broken(call, operation.name, error)

    function.__name__ = operation.name
    function.__doc__ = operation.doc
    parameters = operation.arguments.schema_of()
    schema = {"name": operation.name, "description": operation.doc, "parameters": parameters}
    function.__schema__ = schema  # type: ignore[attr-defined]
    return function
