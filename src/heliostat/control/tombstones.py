"""When an instance that was given up is really gone: listings say so, never a guess. Functions are pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from heliostat.control.memory import Memory
from heliostat.model.instance import InstanceIntent, Intent
from heliostat.model.snapshot import BackendView
from heliostat.ports.provider import Delayed, Provider

DOWN_LATE_S = 70.0
"""`down` waits no longer than this for what nobody answered: `Timing.wind_down_s` is all that it has. That is
twice a message timeout of 35 s; where a site's is longer, `doctor` finds what came later still."""


class Tombstones:
    """Tells of the instances that `memory` knows which ones are gone.

    `message_timeout_s` is for backends that do not tell their own. `listings` are by backend's name.
    """

    def __init__(
        self, memory: Memory, providers: Mapping[str, Provider], *, message_timeout_s: float
    ) -> None:
        self._memory = memory
        self._providers = providers
        self._message_timeout_s = message_timeout_s

    def late_s(self, backend: str) -> float:
        """Return how long after it was sent a request may still show in a listing: twice the message timeout.

        Once for the request itself, once for a listing that is behind.
        """
        provider: object = self._providers.get(backend)
        if isinstance(provider, Delayed):
            return 2 * provider.message_timeout_s
        return 2 * self._message_timeout_s

    def over(self, listings: Mapping[str, BackendView]) -> list[str]:
        """Return the released instances that may be forgotten."""
        absent = self._memory.history.absent_since
        return [
            key
            for key, one in self._memory.intents.items()
            if is_over(
                one,
                listings.get(one.backend),
                absent_since_s=absent.get(key),
                late_s=self.late_s(one.backend),
            )
        ]

    def unseen(self, backend: str, view: BackendView) -> frozenset[str]:
        """Return the instances so young that a listing which lags may lack them: what it does not have is
        there all the same. What was refused is none of them."""
        memory, late_s = self._memory, self.late_s(backend)
        absent, listed = memory.history.absent_since, memory.history.first_listed
        return frozenset(
            key
            for key, one in memory.intents.items()
            if one.backend == backend
            and key not in memory.refused
            and is_unseen(view, since_s=listed.get(key, absent.get(key)), late_s=late_s)
        )

    def not_known_to_be_gone(self, listings: Mapping[str, BackendView]) -> list[str]:
        """Return what keeps a cluster that goes down: instances, and backends that have not been heard."""
        memory = self._memory
        instances = [
            key
            for key, one in memory.intents.items()
            if one.intent is Intent.WANTED
            or not is_down(
                one,
                listings.get(one.backend),
                unclear_s=memory.unclear.get(key),
                late_s=min(self.late_s(one.backend), DOWN_LATE_S),
            )
        ]
        unheard = [name for name, view in listings.items() if not is_heard(view, memory.intents)]
        return [*sorted(instances), *unheard]


def is_absent(intent: InstanceIntent, view: BackendView | None) -> bool:
    """Say whether a fresh listing that began after the release has no row of the instance.

    A backend that the file no longer has (None) can't be asked: its instances end by
    themselves, as orphans do.
    """
    if view is None:
        return True
    return (
        view.fresh and intent.instance_id not in view.ids and view.listed_at_s > (intent.released_at_s or 0.0)
    )


def is_heard(view: BackendView, known: Collection[str]) -> bool:
    """Say whether a backend has been listed since this controller began, and all of that is `known`.

    What the journal has lost is known by a listing alone.
    """
    return view.listed_at_s > 0 and view.ids.issubset(known)


def is_unseen(view: BackendView, *, since_s: float | None, late_s: float) -> bool:
    """Say whether a listing may lack an instance that is there: each may be behind by `late_s`, one by more
    than the one before it. `since_s` is when the first that had it began or, where none has, the first that
    began after its ask was answered; None where there is no such either."""
    return since_s is None or view.listed_at_s < since_s + late_s


def is_over(
    intent: InstanceIntent, view: BackendView | None, *, absent_since_s: float | None, late_s: float
) -> bool:
    """Say whether a released instance has been absent from fresh listings so long that nothing late brings
    it back; `absent_since_s` is None where no listing has lacked it yet."""
    if intent.released_at_s is None or not is_absent(intent, view):
        return False
    if view is None:
        return True
    if absent_since_s is None:
        return False
    return view.listed_at_s >= max(absent_since_s, intent.released_at_s) + late_s


def is_down(
    intent: InstanceIntent, view: BackendView | None, *, unclear_s: float | None, late_s: float
) -> bool:
    """Say whether the cluster may end as far as this instance goes: absent, and not still on its way.

    `unclear_s` is when a launch of it was left without a clear answer, None for one that was answered:
    that one is there or has ended, so nothing late is to come.
    """
    if not is_absent(intent, view):
        return False
    return view is None or unclear_s is None or view.listed_at_s >= unclear_s + late_s
