"""Faults of a moment: things that befall the head's host, Ray's head, or a whole backend for a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from heliostat.sim.faults import MOMENTS, Mischief
from heliostat.sim.membranes import changes_of
from heliostat.sim.scenario import Span
from heliostat.sim.world.world import World
from heliostat.sim.wrapper import Wrapper

S_PER_H = 3_600.0

SPANS: dict[str, Span] = {
    "controller pause": (1.0, 40.0),
    "dead gcs": (1.0, 40.0),
    "head restart": (2.0, 40.0),
    "head loss": (2.0, 40.0),
    "backend outage": (2.0, 90.0),
    "disk full": (1.0, 40.0),
    "swizzle": (5.0, 60.0),
    "change outage": (20.0, 120.0),
}
"""How long each lasts. What hides Ray is shorter than the `head_timeout_s` after which all is let go."""

OFF_S: Span = (-7_200.0, 7_200.0)
"""How far off the backends' clocks a jump may leave the head's: longer than all that is waited for."""


@dataclass
class _Open:
    """A fault that lasts: `close` ends it, once."""

    close: Callable[[], None]
    is_over: bool = False


class Moments:
    """Lets the kinds of `MOMENTS` happen until `end()`, which also ends what lasts."""

    def __init__(self, world: World, wrapper: Wrapper) -> None:
        self._world = world
        self._wrapper = wrapper
        self._host = wrapper.host
        self._mischief: Mischief = wrapper.host.mischief
        self._open: list[_Open] = []
        self._over = False
        self._deeds: dict[str, Callable[[], Callable[[], None] | None]] = {
            "controller pause": self._pause,
            "dead gcs": lambda: self._hide("ray"),
            "head restart": lambda: self._head(with_state=True),
            "head loss": lambda: self._head(with_state=False),
            "backend outage": self._outage,
            "disk full": self._fill,
            "journal loss": self._lose_journal,
            "clock jump": self._jump,
            "swizzle": self._swizzle,
            "change outage": self._change_outage,
        }

    def begin(self) -> None:
        if self._mischief.rate("clock jump"):
            # A host's clock may be wrong before anything of ours begins, too.
            self._jump()
        for kind in MOMENTS:
            self._plan(kind)
        self._plan_crash()

    def end(self) -> None:
        """Let nothing more happen, and everything that lasts be over now."""
        self._over = True
        for one in self._open:
            self._close(one)

    def _plan(self, kind: str) -> None:
        if self._mischief.rate(kind):
            self._host.loop.apart(self._mischief.wait(kind) * S_PER_H, self._strike, kind)

    def _strike(self, kind: str) -> None:
        if self._over:
            return
        undo = self._deeds[kind]()
        if undo is not None or kind not in SPANS:
            self._mischief.happened[kind] += 1
            self._host.trace.add("fault", kind)
        if undo is not None:
            one = _Open(undo)
            self._open.append(one)
            self._host.loop.apart(self._mischief.draw(kind).uniform(*SPANS[kind]), self._close, one)
        self._plan(kind)

    def _close(self, one: _Open) -> None:
        if not one.is_over:
            one.is_over = True
            one.close()

    # -- crashes between any two callbacks ------------------------------------------------

    def _plan_crash(self) -> None:
        if self._mischief.rate("controller crash"):
            self._crash_at = self._host.loop.steps + 1 + int(self._mischief.wait("controller crash"))
            self._host.loop.on_step.append(self._crash_if_due)

    def _crash_if_due(self) -> None:
        loop = self._host.loop
        if loop.steps < self._crash_at or self._over:
            return
        self._crash_at = loop.steps + 1 + int(self._mischief.wait("controller crash"))
        if self._wrapper.process is not None:
            self._mischief.happened["controller crash"] += 1
            self._host.trace.add("fault", "controller crash")
            self._wrapper.kill()

    # -- what happens; each returns how it ends, None if it could not happen ---------------

    def _pause(self) -> Callable[[], None] | None:
        process = self._wrapper.process
        if process is None or process.shelf is not None:
            return None
        process.freeze()
        self._host.witness.troubled("controller", self._host.loop.time())

        def go_on() -> None:
            self._host.witness.troubled("controller", self._host.loop.time())
            process.thaw()

        return go_on

    def _hide(self, whose: str) -> Callable[[], None] | None:
        if whose in self._host.away:
            return None
        self._host.away.add(whose)

        def back() -> None:
            self._host.witness.troubled(whose, self._host.loop.time())
            self._host.away.discard(whose)

        return back

    def _outage(self) -> Callable[[], None] | None:
        names = sorted(self._host.spec.backends)
        return self._hide(self._mischief.draw("backend outage").choice(names))

    def _change_outage(self) -> Callable[[], None] | None:
        names = sorted(self._host.spec.backends)
        return self._hide(changes_of(self._mischief.draw("change outage").choice(names)))

    def _head(self, *, with_state: bool) -> Callable[[], None] | None:
        ray = self._world.ray
        if not ray.alive:
            return None
        ray.die()

        def back() -> None:
            self._host.witness.troubled("ray", self._host.loop.time())
            ray.come_back(with_state=with_state)

        return back

    def _fill(self) -> Callable[[], None]:
        self._host.disk.fill()
        self._host.witness.unwritable(self._host.loop.time(), full=True)

        def free() -> None:
            self._host.witness.unwritable(self._host.loop.time(), full=False)
            self._host.disk.free()

        return free

    def _lose_journal(self) -> None:
        self._host.disk.lose()
        self._host.witness.lost_journal()
        self._wrapper.kill()

    def _jump(self) -> None:
        seconds = self._mischief.draw("clock jump").uniform(*OFF_S) - self._host.clock.off_s
        self._host.clock.jump(seconds)
        self._host.trace.add("clock", f"jumps by {seconds:.1f} s")

    def _swizzle(self) -> Callable[[], None] | None:
        """Silence some machines one by one, and let them be heard again in another order."""
        chance, loop = self._mischief.draw("swizzle"), self._host.loop
        chosen = [one for one in self._world.running() if chance.random() < 0.5]
        if not chosen:
            return None
        chance.shuffle(chosen)
        for number, machine in enumerate(chosen):
            loop.apart(float(number), self._world.hush, machine)

        def again() -> None:
            chance.shuffle(chosen)
            for number, machine in enumerate(chosen):
                loop.apart(float(number + len(chosen)), self._world.wake, machine)

        return again
