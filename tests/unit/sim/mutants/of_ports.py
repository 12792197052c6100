"""Bugs of the journal, of the providers' clients, and of what runs on a worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from heliostat.journal import SqliteJournal
from heliostat.model.instance import (
    BackendInstance,
    BackendState,
    InstanceIntent,
    Intent,
    LaunchRequest,
)
from heliostat.ports.errors import ProviderError
from heliostat.ports.journal import Event
from heliostat.sim.clock import EPOCH_S, Dates
from heliostat.sim.world.batch_provider import BatchProvider
from heliostat.sim.world.cloud_provider import CloudProvider
from heliostat.sim.world.ray.sim import RaySim
from heliostat.sim.written import JournalMembrane
from tests.unit.sim.mutants.mutant import Catalogue

PORTS = Catalogue()


@PORTS.mutant(seed=1, checks="others")
def strangers_are_ours_in_a_batch_system(patch: pytest.MonkeyPatch) -> None:
    """The batch system's listing is not filtered by the cluster's uid."""
    patch.setattr(BatchProvider, "_jobs", lambda self: self._backend.listed())


@PORTS.mutant(seed=1, checks="others")
def strangers_are_ours_in_a_cloud(patch: pytest.MonkeyPatch) -> None:
    """The cloud's listing is not filtered by the cluster's uid."""
    patch.setattr(CloudProvider, "_listed", lambda self: self._backend.listed())


@PORTS.mutant(seed=16, checks="lost")
def what_queues_is_not_listed(patch: pytest.MonkeyPatch) -> None:
    """The batch system's listing has what runs, and nothing that waits."""
    lists = BatchProvider._list

    async def listed(self: BatchProvider) -> list[BackendInstance]:
        return [row for row in await lists(self) if row.state is not BackendState.QUEUED]

    patch.setattr(BatchProvider, "_list", listed)


@PORTS.mutant(seed=6, checks="known")
def of_a_launch_one_is_written(patch: pytest.MonkeyPatch) -> None:
    """Of the members of a launch the first alone gets into the journal."""
    writes = JournalMembrane.record_intents

    def record(
        self: JournalMembrane, intents: Sequence[InstanceIntent], *args: object, **kwargs: object
    ) -> None:
        first = [one for one in intents if one.released_at_s is not None or one.instance_id.endswith(".0")]
        writes(self, first, *args, **kwargs)  # type: ignore[arg-type]

    patch.setattr(JournalMembrane, "record_intents", record)


@PORTS.mutant(seed=177, checks="met settles told")
def backends_dates_are_taken_as_they_are(patch: pytest.MonkeyPatch) -> None:
    """A backend's times are compared with the controller's clock, which is not of the backend."""
    patch.setattr(Dates, "of", lambda _, true_s: EPOCH_S + true_s)


@PORTS.mutant(seed=2, checks="limits known")
def a_commit_is_not_on_disk(patch: pytest.MonkeyPatch) -> None:
    """Intents that were to be written are kept in memory until something else is committed."""

    def record(
        self: SqliteJournal, intents: Sequence[InstanceIntent], events: Sequence[Event], **_: object
    ) -> None:
        self.note_intents(intents)
        self.record_events(events)

    patch.setattr(SqliteJournal, "record_intents", record)


@PORTS.mutant(seed=83, checks="wholes")
def half_a_gang_is_submitted(patch: pytest.MonkeyPatch) -> None:
    """Where a submit limit stands against a gang, a part of it is submitted."""
    submits = BatchProvider._submit

    async def submit(
        self: BatchProvider, request: LaunchRequest, indexes: list[int]
    ) -> dict[str, ProviderError]:
        failed = await submits(self, request, indexes)
        return await submits(self, request, indexes[:1]) if failed and request.together else failed

    patch.setattr(BatchProvider, "_submit", submit)


@PORTS.mutant(seed=17, checks="single")
def the_claim_is_skipped(patch: pytest.MonkeyPatch) -> None:
    """A worker joins whoever else has claimed its instance id."""
    patch.setattr(RaySim, "claim", lambda *_: True)


@PORTS.mutant(seed=6, checks="known")
def a_release_is_not_kept(patch: pytest.MonkeyPatch) -> None:
    """What is released is written as wanted: the next controller goes on with it."""
    writes = SqliteJournal.record_intents

    def record(
        self: SqliteJournal, intents: Sequence[InstanceIntent], *args: object, **kwargs: object
    ) -> None:
        kept = [replace(one, intent=Intent.WANTED) for one in intents]
        writes(self, kept, *args, **kwargs)  # type: ignore[arg-type]

    patch.setattr(SqliteJournal, "record_intents", record)


@PORTS.mutant(seed=2, checks="forgotten")
def claims_are_kept(patch: pytest.MonkeyPatch) -> None:
    """The head's store keeps the claims of what is forgotten."""
    patch.setattr(RaySim, "forget_claims", lambda *_: None)
