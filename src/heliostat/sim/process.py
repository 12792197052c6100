"""A process of the simulated machine: one life of the controller, which may end between any two callbacks.

A context variable marks all that the process causes. Killing it drops those callbacks, as `kill -9` does:
no `finally` runs, nothing is raised, and what it had asked of the world goes on without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from weakref import WeakSet

from heliostat.sim.loop import OWNER, VirtualLoop

T = TypeVar("T")

_CLOSES_AT_MOST = 20
"""A coroutine may stop again on its way out, in a `finally` that awaits; each is closed so often."""


class Killed(BaseException):
    """The process is dead: raised where one of its own calls noticed, and meant for nobody."""


class Process:
    """Runs a coroutine and all that it starts, until `kill()`.

    `check()` stands before everything that the process does to the world. Where it dies in the
    midst of a callback, the stack unwinds through Killed and no call on the way has an effect.
    `on_kill` hears of its death.
    """

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.name = name
        self.dead = False
        self.shelf: list[asyncio.Handle] | None = None
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self.on_kill: Callable[[], None] = lambda: None
        self._kept: list[asyncio.Task[Any]] = []
        self._loop = loop

    def start(self, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        context = contextvars.Context()
        context.run(OWNER.set, self)
        return self._loop.create_task(coro, name=self.name, context=context)

    def check(self) -> None:
        """Raise Killed if the process is dead."""
        if self.dead:
            raise Killed(self.name)

    def kill(self) -> None:
        """End it at once. Its tasks are kept as they are, so that nothing of them runs before `bury()`."""
        if not self.dead:
            self.dead = True
            self.shelf = None
            self._kept = [task for task in self.tasks if not task.done()]
            self.on_kill()

    def freeze(self) -> None:
        """Stop it, as SIGSTOP or a sleeping machine does: its callbacks wait, time goes on."""
        if self.shelf is None and not self.dead:
            self.shelf = []

    def thaw(self) -> None:
        if self.shelf is not None:
            waiting, self.shelf = self.shelf, None
            self._loop.again(waiting)

    def bury(self) -> None:
        """Close what is left of its tasks, when the run is over and its loop is closed."""
        assert self._loop.is_closed(), "what is buried must not run any more"
        self.on_kill = lambda: None
        self.kill()
        for task in self._kept:
            # asyncio itself silences a task so where it gives one up.
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            _close(task.get_coro())
        self._kept = []


def _close(coro: Any) -> None:
    for _ in range(_CLOSES_AT_MOST):
        # RuntimeError: it awaits in a `finally`, and is closed again. Killed: it asked for something there.
        with contextlib.suppress(RuntimeError, Killed):
            coro.close()
            return
