"""The conformance kit finds what is wrong with a provider: each of these breaks its promise in one way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.model.instance import BackendInstance, Change, LaunchRequest
from heliostat.ports.errors import ProviderError, QuotaExceeded, Unavailable
from heliostat.ports.provider import ClusterIdentity, Outcome, Provider
from heliostat.testing.fake import FakeProvider
from tests.unit.repo import tree
from tests.unit.testing import test_fake


class LaunchesAgain(FakeProvider):
    def _launch(self, request: LaunchRequest) -> dict[str, ProviderError]:
        for instance_id in request.instance_ids:
            self.world.instances.pop(instance_id, None)
        return super()._launch(request)


class KnowsItsOwnLaunchesOnly(FakeProvider):
    """A backend without idempotency keys, and a provider that remembers what it asked but never looks."""

    def _create(self, request: LaunchRequest, instance_id: str) -> None:
        super()._create(request, instance_id)
        self._announced.add(instance_id)

    def _launch(self, request: LaunchRequest) -> dict[str, ProviderError]:
        for one in request.instance_ids:
            if one in self.world.instances and one not in self._announced:
                self.world.instances[f"{one} again"] = replace(self.world.instances[one])
        return super()._launch(request)

    async def instances(self) -> Sequence[BackendInstance]:
        return list({row.instance_id: row for row in await super().instances()}.values())


class TakesAnErrorForEmpty(FakeProvider):
    async def instances(self) -> Sequence[BackendInstance]:
        try:
            return await super().instances()
        except Unavailable:
            return ()


class CallsEverythingUnavailable(FakeProvider):
    async def apply(self, change: Change) -> Outcome:
        outcome = await super().apply(change)
        return Outcome({key: Unavailable(str(error)) for key, error in outcome.failed_launches.items()})


class SaysNoWord(FakeProvider):
    async def apply(self, change: Change) -> Outcome:
        outcome = await super().apply(change)
        return Outcome(dict.fromkeys(outcome.failed_launches, QuotaExceeded("")))


class IsBusyForEverOnceCancelled(FakeProvider):
    busy = False

    async def apply(self, change: Change) -> Outcome:
        if self.busy:
            raise Unavailable("busy")
        self.busy = True
        outcome = await super().apply(change)
        self.busy = False
        return outcome


class SplitsGangs(FakeProvider):
    def _launch(self, request: LaunchRequest) -> dict[str, ProviderError]:
        return super()._launch(replace(request, together=False))


class ForgetsTheThrottle(FakeProvider):
    def _launch(self, request: LaunchRequest) -> dict[str, ProviderError]:
        return super()._launch(replace(request, at_once=None))


class HidesTheLease(FakeProvider):
    async def instances(self) -> Sequence[BackendInstance]:
        return [replace(row, expires_at_s=None) for row in await super().instances()]


class BelievesAnOldListing(FakeProvider):
    def _terminate(self, instance_id: str) -> None:
        super()._terminate(instance_id)
        self._terminated.clear()


class TerminatesOnlyWhatIsListed(FakeProvider):
    """It remembers what it was told to end, and drops what its listing lacks."""

    def _terminate(self, instance_id: str) -> None:
        shown = self.world.shown
        if shown is None or instance_id in shown:
            super()._terminate(instance_id)
        elif instance_id in self.world.instances:
            self.world.instances[instance_id].launched_s = float("inf")


class SeesEverybodys(FakeProvider):
    def _ours(self, shown: object = None) -> list:  # type: ignore[type-arg]
        return list(self.world.instances.values())


class DropsFailures(FakeProvider):
    async def instances(self) -> Sequence[BackendInstance]:
        return [row for row in await super().instances() if row.detail is None]


BROKEN = {
    LaunchesAgain: "the_same_launch_twice_is_one",
    KnowsItsOwnLaunchesOnly: "a_launch_cut_short_by_a_crash_may_be_asked_again",
    TakesAnErrorForEmpty: "a_listing_that_fails_is_no_empty_one",
    CallsEverythingUnavailable: "a_limit_is_a_quota",
    SaysNoWord: "a_limit_is_a_quota",
    IsBusyForEverOnceCancelled: "a_cancelled_launch_may_be_asked_again",
    SplitsGangs: "of_a_gang_that_does_not_fit_nothing_is_launched",
    ForgetsTheThrottle: "what_is_held_back_runs_once_it_is_let_go",
    HidesTheLease: "the_end_of_a_lease_is_listed_from_the_start_on",
    BelievesAnOldListing: "what_is_still_listed_after_its_termination_never_looks_alive",
    SeesEverybodys: "another_clusters_instances_are_neither_seen_nor_touched",
    DropsFailures: "a_failed_instance_stays_listed_until_terminated",
}


class Tried(test_fake.TestFakeConforms):
    """The kit on a provider that is broken; short, since what never comes is waited for."""

    deadline_s = 1.0
    machine_examples = 40
    __test__ = False

    def __init__(self, broken: type[FakeProvider]) -> None:
        self.broken = broken
        self.setup_method()

    def make(self, place: Path, identity: ClusterIdentity) -> Provider:
        super().make(place, identity)
        self.provider.__class__ = self.broken
        return self.provider


@pytest.mark.parametrize("broken", BROKEN, ids=lambda one: one.__name__)
def test_a_broken_promise_is_found(broken: type[FakeProvider], tmp_path: Path) -> None:
    with pytest.raises((AssertionError, TimeoutError, ProviderError, pytest.fail.Exception)):
        getattr(Tried(broken), f"test_{BROKEN[broken]}")(tmp_path)


@pytest.mark.parametrize("broken", [LaunchesAgain, KnowsItsOwnLaunchesOnly, DropsFailures])
def test_random_calls_find_it_too(broken: type[FakeProvider], tmp_path: Path) -> None:
    with pytest.raises((AssertionError, TimeoutError, ProviderError)):
        Tried(broken).test_random_calls_do_what_a_dictionary_says(tmp_path)


def test_without_hypothesis_one_test_is_skipped_and_the_rest_is_there(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "import pytest\n"
        "from tests.unit.testing import test_fake\n"
        "kit = test_fake.TestFakeConforms()\n"
        "kit.setup_method()\n"
        "with pytest.raises(pytest.skip.Exception, match='heliostat.testing'):\n"
        "    kit.test_random_calls_do_what_a_dictionary_says(None)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tree.ROOT, check=True, timeout=30)
