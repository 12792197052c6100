"""The instances that were asked to end: known on this host's disk, too, and told until they have ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from pathlib import Path

import structlog

from heliostat.ports.errors import ProviderError, Unavailable
from heliostat.providers.slurm import stop_file
from heliostat.providers.slurm.members import Member, Members
from heliostat.providers.slurm.stopping import (
    Order,
    Stop,
    compressed,
    lonely,
    looked_at,
    orders,
    steps_command,
    told,
)

TERMINATE_GRACE_S = 45.0
"""How long a bootstrap may take after TERM: Ray's own drain, and a little more."""

log = structlog.get_logger(__name__)


class Endings:
    """`command` runs one of Slurm's commands, and returns what it printed; it raises ProviderError."""

    def __init__(
        self,
        folder: Path,
        command: Callable[[Sequence[str]], Awaitable[str]],
        monotonic_s: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._command = command
        self._monotonic_s = monotonic_s
        self._stops = dict.fromkeys(stop_file.load(folder), Stop())
        self._unsaved = False

    @property
    def asked(self) -> Collection[str]:
        """Return the ids of what was asked to end."""
        return self._stops.keys()

    def ask(self, instance_ids: Iterable[str]) -> None:
        self._replace(dict.fromkeys(instance_ids, Stop()) | self._stops)

    def keep(self, members: Members) -> None:
        """Forget what squeue lists no more."""
        self._replace({key: stop for key, stop in self._stops.items() if key in members.chosen})

    def has_left(self, member: Member) -> bool:
        """Say whether an instance that was asked to end has done so."""
        return member.is_over or self._stops.get(member.instance_id, Stop()).over

    async def carry_out(self, members: Members, *, also: Iterable[Order] = ()) -> None:
        """Tell whom it is time to tell, and cancel the second of two jobs for one instance.

        What fails here is due again at the next listing. What Slurm refuses of one keeps no other from
        ending: the first refusal is raised at the end. A Slurm that does not answer is not asked for more.
        """
        refused: list[ProviderError] = []
        try:
            # A step that runs has to be seen before it is told to end: else nobody knows that it ever ran.
            await self._look_at_steps(members)
        except ProviderError as error:
            _noted(error, refused)
        now_s = self._monotonic_s()
        due = [*also, *orders(self._stops, members.chosen, now_s=now_s, grace_s=TERMINATE_GRACE_S)]
        # Of two that run the one that has not joined ends by itself: nobody here knows which it is.
        if waiting := [one for one in members.doubles if one.is_queued]:
            due.append(Order(("scancel", *compressed(waiting)), ()))
        for order in due:
            try:
                await self._command(order.command)
            except ProviderError as error:
                _noted(error, refused)
                continue
            self._stops = told(self._stops, order, now_s=self._monotonic_s())
        if refused:
            raise refused[0]

    async def _look_at_steps(self, members: Members) -> None:
        """See which members have ended whose gangs go on; squeue is asked once more only if there are any."""
        if lonesome := lonely(self._stops, members.chosen):
            steps = (await self._command(steps_command(lonesome))).split()
            now_s = self._monotonic_s()
            self._stops = looked_at(self._stops, lonesome, steps, now_s=now_s, grace_s=TERMINATE_GRACE_S)

    def _replace(self, new: dict[str, Stop]) -> None:
        """Replace the stops, on the disk first where other instances are meant."""
        if new.keys() != self._stops.keys() or self._unsaved:
            try:
                stop_file.save(self._folder, new)
                self._unsaved = False
            except Unavailable as error:
                # Only the words of a next controller suffer; nothing may keep instances from ending.
                log.warning("what was ended could not be noted", error=str(error))
                self._unsaved = True
        self._stops = new


def _noted(error: ProviderError, refused: list[ProviderError]) -> None:
    if isinstance(error, Unavailable):
        raise error
    refused.append(error)
