"""Bugs of the journal, of the providers' clients, and of what runs on a worker."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from heliostat.model.instance import InstanceIntent
from heliostat.sim.clock import EPOCH_S, Dates
from heliostat.sim.world.batch_provider import BatchProvider
from heliostat.sim.world.cloud_provider import CloudProvider
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


@PORTS.mutant(seed=1, checks="known")
def of_a_launch_one_is_written(patch: pytest.MonkeyPatch) -> None:
    """Of the members of a launch the first alone gets into the journal."""
    writes = JournalMembrane.record_intents

    def record(
        self: JournalMembrane, intents: Sequence[InstanceIntent], *args: object, **kwargs: object
    ) -> None:
        first = [one for one in intents if one.released_at_s is not None or one.instance_id.endswith(".0")]
        writes(self, first, *args, **kwargs)  # type: ignore[arg-type]

    patch.setattr(JournalMembrane, "record_intents", record)


@PORTS.mutant(seed=None, checks="met")
def backends_dates_are_taken_as_they_are(patch: pytest.MonkeyPatch) -> None:
    """A backend's times are compared with the controller's clock, which is not of the backend."""
    patch.setattr(Dates, "of", lambda _, true_s: EPOCH_S + true_s)
