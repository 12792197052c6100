"""When the world's own things happen: on the simulation's loop, or when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from heliostat.sim.loop import VirtualLoop


class Appointment(Protocol):
    def cancel(self) -> None: ...


class Agenda(Protocol):
    """`now_s` is the true time, in seconds since the run's start: it never jumps."""

    def now_s(self) -> float: ...

    def after(self, delay_s: float, do: Callable[..., object], *args: object) -> Appointment: ...


class LoopAgenda:
    """The world's agenda on a loop. What is planned outlives the controller that caused it."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.now_s = loop.time

    def after(self, delay_s: float, do: Callable[..., object], *args: object) -> Appointment:
        return self._loop.apart(delay_s, do, *args)
