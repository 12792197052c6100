"""The production controller with failpoints: its ports are wrapped where it puts them together.

Started by the wrapper beside it, in place of `heliostat.cli.controller`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from heliostat.cli import controller
from heliostat.config.places import StatePlaces
from heliostat.control.wiring import Ports
from heliostat.model.instance import Change, InstanceIntent, Intent
from heliostat.ports.provider import Provider
from heliostat.providers.local import lifecycle
from heliostat.providers.local import provider as local
from heliostat.providers.slurm import runner
from tests.integration.kills.failpoints import ADOPTION, DOWN, HISTORY, VARIABLE, Failpoints

Names = Callable[..., Iterable[str]]


def main() -> None:
    points = Failpoints(Path(os.environ[VARIABLE]))
    points.begin(StatePlaces(Path(sys.argv[1])).journal)
    points.reach("start")
    wrap_local(points)
    wrap_slurm(points)

    def ports(**made: Any) -> Ports:
        return wrapped(Ports(**made), points)

    controller.Ports = ports  # type: ignore[assignment,misc]
    controller.main()


def wrapped(ports: Ports, points: Failpoints) -> Ports:
    journal, cluster = ports.journal, ports.cluster
    put, noted = Wrap(points), Noted()
    put.around(journal, "note_intents", after=noted.adoptions)
    put.around(journal, "record_history", after=noted.history)
    put.around(journal, "record_intents", before=_decided, after=noted.journalled)
    put.around(journal, "forget_intents", after=_named("forgotten"))
    put.around_async(cluster, "drain", before=_named("drain decided"), after=_named("drain agreed"))
    put.around_async(cluster, "report", after=_named("report sent"))
    for provider in ports.providers.values():
        wrap_provider(provider, put)
    points.reach("before the first round")
    return ports


def wrap_provider(provider: Provider, put: Wrap) -> None:
    put.around_async(provider, "apply", before=_called("begun"), after=_called("answered"))
    asked, answered = _named("listing asked"), _named("listing answered")
    put.around_async(provider, "instances", before=asked, after=answered)


def wrap_local(points: Failpoints) -> None:
    put = Wrap(points)
    put.around(local, "spawn", before=_named("worker claimed"), after=_named("worker forked"))
    put.around(lifecycle, "send", before=_named("stop noted"), after=_named("stop told"))


def wrap_slurm(points: Failpoints) -> None:
    put = Wrap(points)
    put.around_async(runner, "_ended", before=lambda child, files, name: [f"{name} running"])
    put.around_async(runner.LocalRunner, "run", after=lambda self, argv, **_: [f"{argv[0]} done"])


class Wrap:
    """Puts failpoints around a function where it is kept: what is before and after it, by its arguments."""

    def __init__(self, points: Failpoints) -> None:
        self._points = points

    def around(
        self, place: Any, name: str, *, before: Names | None = None, after: Names | None = None
    ) -> None:
        call = getattr(place, name)

        @wraps(call)
        def wrapper(*args: Any, **options: Any) -> Any:
            self._reach(before, args, options)
            result = call(*args, **options)
            self._reach(after, args, options)
            return result

        setattr(place, name, wrapper)

    def around_async(
        self, place: Any, name: str, *, before: Names | None = None, after: Names | None = None
    ) -> None:
        call = getattr(place, name)

        @wraps(call)
        async def wrapper(*args: Any, **options: Any) -> Any:
            self._reach(before, args, options)
            result = await call(*args, **options)
            self._reach(after, args, options)
            return result

        setattr(place, name, wrapper)

    def _reach(self, names: Names | None, args: Sequence[Any], options: dict[str, Any]) -> None:
        for name in names(*args, **options) if names else ():
            self._points.reach(name)


class Noted:
    """What the journal was only given to note: it is on the disk with the next intents that it records."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def adoptions(self, intents: Sequence[InstanceIntent]) -> list[str]:
        if any(one.adopted for one in intents):
            self._names.append(ADOPTION)
        return []

    def history(self, _: object) -> list[str]:
        self._names.append(HISTORY)
        return []

    def journalled(self, intents: Sequence[InstanceIntent], *_: object, **__: object) -> list[str]:
        names, self._names = self._names, []
        return [*names, *(f"{kind} journalled" for kind in _kinds(intents))]


def _named(name: str) -> Names:
    return lambda *_, **__: [name]


def _decided(intents: Sequence[InstanceIntent], *_: object, **__: object) -> list[str]:
    return [f"{kind} decided" for kind in _kinds(intents)]


def _kinds(intents: Sequence[InstanceIntent]) -> list[str]:
    kinds = []
    if any(one.intent is Intent.WANTED for one in intents):
        kinds.append("launch")
    released = [one for one in intents if one.intent is Intent.RELEASED]
    if released:
        kinds.append("release")
    if any(one.release_reason == BY_HAND for one in released):
        kinds.append(DOWN.partition(" ")[0])
    return kinds


BY_HAND = "asked by hand"
"""Why a cluster goes down when `heliostat down` is asked."""


def _called(when: str) -> Names:
    def names(change: Change) -> list[str]:
        kinds = [("launch", change.launch), ("release", change.terminate)]
        return [f"{kind} {when}" for kind, asked in kinds if asked]

    return names


if __name__ == "__main__":
    main()
