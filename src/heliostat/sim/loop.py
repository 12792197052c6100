"""An event loop without a thread, a selector or a socket: time jumps to whatever is next.

It keeps `asyncio`'s promises to tasks, futures, timeouts and locks, and no other: whatever would be real
input or output (an executor, a socket, a signal, another process) raises.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, TypeVarTuple
from weakref import WeakSet

from heliostat.sim.dice import Stream

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STEPS_PER_INSTANT = 100_000
"""So many callbacks without time moving on are a loop that will never end."""


class Stuck(RuntimeError):
    """Nothing is left that could ever happen, or nothing else will."""


class Owner(Protocol):
    """On whose behalf callbacks run: a process that may be dead, or stopped for a while."""

    dead: bool
    shelf: list[asyncio.Handle] | None
    tasks: WeakSet[asyncio.Task[Any]]


OWNER: contextvars.ContextVar[Owner | None] = contextvars.ContextVar("owner", default=None)
"""The process that caused what runs now. Tasks and callbacks inherit it, as they do every context."""


class _Callback(asyncio.TimerHandle):
    """A callback, with its context within reach: whose it is decides whether it may still run."""

    __slots__ = ("context",)

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        *,
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self.context = context


if TYPE_CHECKING:
    # Type checkers want every method of the abstract class; what is left out here is meant to raise.
    _Loop = asyncio.BaseEventLoop
else:
    _Loop = asyncio.AbstractEventLoop


class VirtualLoop(_Loop):
    """`time()` begins at 0 and moves only when nothing is ready, straight to the next timer.

    `order` None runs what is ready first in, first out; else it picks. `steps` counts the callbacks that
    ran. Each of `on_step` is called after each of them and may raise to end the run. `errors` holds what
    asyncio had nobody to tell (`call_exception_handler`).
    """

    def __init__(self, order: Stream | None = None) -> None:
        self.steps = 0
        self.on_step: list[Callable[[], None]] = []
        self.errors: list[dict[str, Any]] = []
        self._order = order
        self._now_s = 0.0
        self._ready: deque[_Callback] = deque()
        self._timers: list[tuple[float, int, _Callback]] = []
        self._made = 0
        self._still_steps = 0
        self._running = False
        self._closed = False
        self._nobody = contextvars.Context()

    # -- what tasks and futures need ------------------------------------------------

    def time(self) -> float:
        return self._now_s

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = self._handle(self._now_s, callback, args, context)
        if not self._closed:
            self._ready.append(handle)
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = self._handle(when, callback, args, context)
        if not self._closed:
            self._made += 1
            heapq.heappush(self._timers, (when, self._made, handle))
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def apart(self, delay_s: float, callback: Callable[[*Ts], object], *args: *Ts) -> asyncio.TimerHandle:
        """Call later on nobody's behalf: the caller's death does not drop it. For the world's own timers."""
        return self.call_at(self._now_s + delay_s, callback, *args, context=self._nobody.copy())

    def task_apart(self, coro: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
        """Start a task on nobody's behalf."""
        return self._nobody.copy().run(self.create_task, coro, name=name)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
        **_: Any,
    ) -> asyncio.Task[T]:
        named = None if name is None else str(name)
        task: asyncio.Task[T] = asyncio.Task(coro, loop=self, name=named, context=context)
        owner = OWNER.get() if context is None else context.get(OWNER)
        if owner is not None:
            owner.tasks.add(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Drop all that is planned; what is asked for from now on never runs."""
        self._closed = True
        self._ready.clear()
        self._timers.clear()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: a cancelled timer is passed over when its time has come."""

    def _handle(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> _Callback:
        return _Callback(
            when,
            callback,
            args,
            loop=self,
            context=contextvars.copy_context() if context is None else context,
        )

    # -- running ----------------------------------------------------------------------

    def run_until_complete(self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        """Run until the future is done and return its result; raises Stuck if it never can be."""
        assert not isinstance(future, Generator)
        task = asyncio.ensure_future(future, loop=self)
        self.run_while(lambda: not task.done())
        return task.result()

    def run_while(self, wanted: Callable[[], bool]) -> None:
        """Run callback after callback as long as `wanted()`; raises Stuck where none is left."""
        assert not self._running, "the loop runs already"
        previous = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        self._running = True
        try:
            while wanted():
                self._step()
        finally:
            self._running = False
            asyncio._set_running_loop(previous)

    def _step(self) -> None:
        """Run one callback that may run, and the hooks; let time jump first if none is ready."""
        if not self._ready:
            self._jump()
        handle = self._ready.popleft() if self._order is None else self._picked(self._order)
        if handle.cancelled():
            return
        owner = handle.context.get(OWNER)
        if owner is not None:
            if owner.dead:
                return
            if owner.shelf is not None:
                owner.shelf.append(handle)
                return
        self.steps += 1
        self._still_steps += 1
        if self._still_steps > STEPS_PER_INSTANT:
            raise Stuck(f"{STEPS_PER_INSTANT} callbacks ran and no time passed; the last is {handle!r}")
        handle._run()
        for hook in self.on_step:
            hook()

    def again(self, handles: list[asyncio.Handle]) -> None:
        """Make callbacks ready that had been set aside."""
        self._ready.extend(one for one in handles if isinstance(one, _Callback))

    def _picked(self, order: Stream) -> _Callback:
        ready = self._ready
        if len(ready) > 1:
            ready.rotate(-int(order.random() * len(ready)))
        return ready.popleft()

    def _jump(self) -> None:
        """Go to the next timer's time and make ready all that is due then."""
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not timers:
            raise Stuck("nothing is left that could ever happen")
        if timers[0][0] > self._now_s:
            self._now_s = timers[0][0]
            self._still_steps = 0
        while timers and timers[0][0] <= self._now_s:
            self._ready.append(heapq.heappop(timers)[2])

    # -- what would be real -------------------------------------------------------------

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], Any], *args: *Ts) -> NoReturn:
        raise NotImplementedError(f"a thread in a simulation: {func!r}")

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> NoReturn:
        raise NotImplementedError(f"a callback from a thread in a simulation: {callback!r}")
