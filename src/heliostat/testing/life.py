"""A controller's process as far as its tasks go: it can be killed, or cancelled, at each of its awaits.

What runs in a `Life` is counted in steps, from one await to the next, over all its tasks. Killed, each
of its tasks stays where it is: no `finally` runs and nothing is raised in it, as with `kill -9`. What it
had asked of the backend goes on without it. Threads can't be killed: those that run are waited for.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

BURIAL_S = 10.0


class Life:
    """Runs calls one after another, until it is killed; to be made and used on one running loop.

    `taken` is how many steps its tasks have made.
    """

    def __init__(self) -> None:
        self.taken = 0
        self.dead = False
        self._killed_at: int | None = None
        self._cancelled_at: int | None = None
        self._call: asyncio.Task[Any] | None = None
        self._killed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._threads = ThreadPoolExecutor()
        loop = asyncio.get_running_loop()
        loop.set_task_factory(_task)
        loop.set_default_executor(self._threads)

    async def run(self, call: Coroutine[Any, Any, T]) -> T:
        return await self._begin(call)

    async def crash(self, call: Coroutine[Any, Any, object], *, after: int) -> None:
        """Begin a call, and kill the life after so many steps of its tasks, or at the call's end."""
        self._killed_at = self.taken + after
        death = asyncio.ensure_future(self._killed.wait())
        await asyncio.wait({self._begin(call), death}, return_when=asyncio.FIRST_COMPLETED)
        self.dead = True
        death.cancel()
        self._threads.shutdown(wait=True, cancel_futures=True)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())

    async def cancel(self, call: Coroutine[Any, Any, object], *, after: int) -> bool:
        """Cancel a call after so many steps and wait for its end; False if it had ended by itself."""
        self._cancelled_at = self.taken + after
        self._call = self._begin(call)
        await asyncio.wait({self._call})
        self._cancelled_at = None
        return self._call.cancelled()

    async def bury(self) -> None:
        """Let go of what a killed life has left: only now its tasks are cancelled, and may clean up."""
        self.dead, self._killed_at = False, None
        left = [task for task in self._tasks if not task.done()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=BURIAL_S)

    def keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def step(self) -> None:
        """Count a step that one of the tasks is about to make; it must not make it if `dead` then."""
        self.taken += 1
        if self._cancelled_at is not None and self.taken > self._cancelled_at and self._call is not None:
            self._cancelled_at = None
            self._call.cancel()
        if self._killed_at is not None and self.taken > self._killed_at:
            self.dead = True
            self._killed.set()

    def _begin(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        context = contextvars.copy_context()
        context.run(_OWNER.set, self)
        return asyncio.get_running_loop().create_task(call, context=context)


_OWNER: contextvars.ContextVar[Life | None] = contextvars.ContextVar("owner", default=None)
"""Whose the running task is. Tasks inherit it from those that start them, as every context."""


class _Counted(Coroutine[Any, Any, T]):
    """A task's coroutine, each step of which its life counts. In a dead life it waits for ever."""

    def __init__(self, coro: Coroutine[Any, Any, T], life: Life) -> None:
        self._coro = coro
        self._life = life

    def send(self, value: Any) -> Any:
        return self._wait_for_ever() if self._has_died() else self._coro.send(value)

    def throw(self, *error: Any) -> Any:
        # The dead hear nothing, not even that they are cancelled.
        return self._wait_for_ever() if self._has_died() else self._coro.throw(*error)

    def close(self) -> None:
        self._coro.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coro.__await__()

    def _has_died(self) -> bool:
        if not self._life.dead:
            self._life.step()
        return self._life.dead

    def _wait_for_ever(self) -> Any:
        return next(asyncio.get_running_loop().create_future().__await__())


def _task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    """Make a task as asyncio does, of a coroutine that is counted where it belongs to a life."""
    context = options.get("context")
    life = _OWNER.get() if context is None else context.get(_OWNER)
    if life is None:
        return asyncio.Task(coro, loop=loop, **options)
    task = asyncio.Task(_Counted(coro, life), loop=loop, **options)
    life.keep(task)
    return task
