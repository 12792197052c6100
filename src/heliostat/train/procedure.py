"""How the same text serves threads and event loops.

A procedure is a generator. It yields each step that may block, and is sent what came of it; so it never
blocks itself. `run` takes the steps where it stands, `run_async` in a thread beside the event loop.
Whatever a step raises ends the procedure where it stands: its `finally` clauses run, and yield nothing.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Hook:
    """A step that is the user's own: it runs where the caller is, never in another thread."""

    run: Callable[[], Any]


Step = Callable[[], Any] | Hook
Procedure = Generator[Step, Any, T]


def run(procedure: Procedure[T]) -> T:
    """Take each step in this thread; return what the procedure returns."""
    with closing(procedure):
        answer: Any = None
        while True:
            try:
                step = procedure.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            answer = _plain(step) if isinstance(step, Hook) else step()


async def run_async(procedure: Procedure[T]) -> T:
    """Take each step in a thread, but hooks on the event loop, where they may be awaitable."""
    with closing(procedure):
        answer: Any = None
        while True:
            try:
                step = procedure.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Hook):
                answer = step.run()
                answer = await answer if inspect.isawaitable(answer) else answer
            else:
                answer = await _beside(step)


async def _beside(step: Callable[[], Any]) -> Any:
    """Take a step in a thread. One that is cancelled is waited for, so that nothing is made after the end."""
    task = asyncio.ensure_future(asyncio.to_thread(step))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _plain(hook: Hook) -> Any:
    answer = hook.run()
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError("a hook that is async needs `async with` and `async_sync`")
    return answer
