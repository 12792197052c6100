"""The batch system queues, throttles, limits, requeues and forgets."""

from __future__ import annotations

import pytest

from heliostat.model.instance import BackendInstance, BackendState, Change
from heliostat.ports.errors import QuotaExceeded
from heliostat.sim.clock import Dates
from heliostat.sim.world.batch import BatchBackend
from heliostat.sim.world.batch_provider import BatchProvider
from heliostat.sim.world.ends import Cause
from heliostat.sim.world.link import Link
from heliostat.sim.world.machine import Phase
from heliostat.sim.world.work import WorkState
from tests.unit.sim.world.stage import OURS, Stage, request

QUEUED, RUNNING, STOPPING = BackendState.QUEUED, BackendState.RUNNING, BackendState.STOPPING
ENDED, FAILED = BackendState.ENDED, BackendState.FAILED


@pytest.fixture
def stage() -> Stage:
    return Stage()


def client(stage: Stage, backend: BatchBackend, stops: set[str] | None = None) -> BatchProvider:
    link = Link(stage.dice.stream("calls"), (0.0, 0.0))
    return BatchProvider(
        backend, OURS, link, stops=set() if stops is None else stops, dates=Dates(backend.agenda.now_s, None)
    )


async def rows(provider: BatchProvider) -> dict[str, BackendInstance]:
    return {one.instance_id: one for one in await provider.instances()}


async def states(provider: BatchProvider) -> dict[str, BackendState]:
    return {key: row.state for key, row in (await rows(provider)).items()}


async def test_a_gang_is_one_allocation_that_starts_and_ends_as_one(stage: Stage) -> None:
    backend = stage.batch(machines=3, lease_s=50.0)
    provider = client(stage, backend)
    await provider.apply(Change(launch=(request(2),)))
    await provider.apply(Change(launch=(request(3, "l2", together=True),)))
    stage.agenda.advance(5)
    found = await rows(provider)
    assert [found[f"l1.{i}"].state for i in range(2)] == [RUNNING] * 2
    assert {found[f"l2.{i}"].state for i in range(3)} == {QUEUED}
    assert len({found[f"l2.{i}"].allocation_id for i in range(3)}) == 1
    assert {found[f"l1.{i}"].allocation_id for i in range(2)} == {None}
    await provider.apply(Change(terminate=("l1.0", "l1.1")))
    stage.agenda.advance(5)
    assert set((await states(provider)).values()) == {RUNNING}
    assert backend.free == 0
    # One member may leave; its node is free when the whole job is over.
    await provider.apply(Change(terminate=("l2.0",)))
    stage.agenda.advance(5)
    assert await states(provider) == {"l2.1": RUNNING, "l2.2": RUNNING}
    assert backend.free == 0
    stage.agenda.advance(60)
    assert await states(provider) == {"l2.1": ENDED, "l2.2": ENDED}
    assert backend.free == 3


async def test_an_array_of_a_new_type_is_throttled_until_it_is_let_go(stage: Stage) -> None:
    provider = client(stage, stage.batch())
    await provider.apply(Change(launch=(request(4, at_once=2),)))
    stage.agenda.advance(5)
    found = await rows(provider)
    assert [(row.state, row.throttled) for row in found.values()] == [(RUNNING, False)] * 2 + [
        (QUEUED, True)
    ] * 2
    assert found["l1.3"].detail == "JobArrayTaskLimit"
    await provider.apply(Change(unthrottle=("cpu",)))
    stage.agenda.advance(5)
    assert set((await states(provider)).values()) == {RUNNING}


async def test_above_the_submit_limit_half_is_taken(stage: Stage) -> None:
    provider = client(stage, stage.batch(submitted_most=5))
    outcome = await provider.apply(Change(launch=(request(8),)))
    assert set(outcome.failed_instances) == {"l1.4", "l1.5", "l1.6", "l1.7"}
    assert all(isinstance(one, QuotaExceeded) for one in outcome.failed_instances.values())
    gang = await provider.apply(Change(launch=(request(2, "l2", together=True),)))
    assert set(gang.failed_launches) == {"l2"}
    assert len(await rows(provider)) == 4


async def test_what_has_left_an_allocation_counts_against_no_submit_limit(stage: Stage) -> None:
    backend = stage.batch(submitted_most=3)
    provider = client(stage, backend)
    await provider.apply(Change(launch=(request(3, together=True),)))
    stage.agenda.advance(5)
    assert set((await provider.apply(Change(launch=(request(2, "l2"),)))).failed_launches) == {"l2"}
    await provider.apply(Change(terminate=("l1.1", "l1.2")))
    await rows(provider)
    stage.agenda.advance(30)
    assert not (await provider.apply(Change(launch=(request(2, "l3"),)))).failed_launches
    assert backend.jobs[1].state == "RUNNING"


async def test_a_lost_reply_and_a_second_ask_are_two_jobs_of_which_one_stays(stage: Stage) -> None:
    backend = stage.batch(machines=1)
    backend.submit(request(), OURS, [0])
    backend.submit(request(), OURS, [0])
    stage.agenda.advance(5)
    provider = client(stage, backend)
    assert await states(provider) == {"l1.0": RUNNING}
    # The one that waited was cancelled by the listing.
    assert [one.phase for one in backend.machines] == [Phase.UP, Phase.OVER]
    assert await states(provider) == {"l1.0": RUNNING}


async def test_of_two_that_run_one_ends_by_itself(stage: Stage) -> None:
    backend = stage.batch(machines=2)
    for _ in range(2):
        backend.submit(request(), OURS, [0])
    stage.agenda.advance(10)
    assert sorted(str(one.cause) for one in backend.machines) == ["Cause.TWIN", "None"]
    assert await states(client(stage, backend)) == {"l1.0": RUNNING}


async def test_a_requeued_instance_comes_back_and_ends_since_its_id_was_used(stage: Stage) -> None:
    backend = stage.batch(requeues=1.0)
    provider = client(stage, backend)
    await provider.apply(Change(launch=(request(),)))
    stage.agenda.advance(5)
    backend.preempt(backend.machines[0])
    stage.agenda.advance(3)
    assert await states(provider) == {"l1.0": QUEUED}
    native = (await rows(provider))["l1.0"].native_id
    stage.agenda.advance(140)
    row = (await rows(provider))["l1.0"]
    assert (row.state, row.native_id) == (FAILED, native)
    assert row.detail == "exit code 11: instance l1.0 has joined already"


async def test_a_preemption_is_announced_by_the_bootstrap_and_ends_the_job(stage: Stage) -> None:
    (work,) = stage.work(300.0)
    backend = stage.batch(requeues=0.0)
    provider = client(stage, backend)
    await provider.apply(Change(launch=(request(),)))
    stage.agenda.advance(5)
    backend.preempt(backend.machines[0])
    stage.agenda.advance(20)
    assert work.state is WorkState.RUNNING
    assert await states(provider) == {"l1.0": STOPPING}
    stage.agenda.advance(15)
    assert work.state is WorkState.WAITING
    assert await states(provider) == {"l1.0": ENDED}


async def test_a_job_is_gone_from_the_listing_after_a_while(stage: Stage) -> None:
    backend = stage.batch(forgets_s=60.0)
    provider = client(stage, backend)
    await provider.apply(Change(launch=(request(2),)))
    stage.agenda.advance(5)
    backend.die(backend.living["1_0"])
    stage.agenda.advance(5)
    assert await states(provider) == {"l1.0": FAILED, "l1.1": RUNNING}
    stage.agenda.advance(60)
    assert await states(provider) == {"l1.1": RUNNING}


async def test_what_does_not_end_gently_is_ended_for_good(stage: Stage) -> None:
    backend = stage.batch()
    stops: set[str] = set()
    provider = client(stage, backend, stops)
    await provider.apply(Change(launch=(request(),)))
    stage.agenda.advance(5)
    machine = backend.machines[0]
    backend.bootstraps[machine.native_id]._stopping = True  # It hears nothing.
    await provider.apply(Change(terminate=("l1.0",)))
    stage.agenda.advance(50)
    # Another controller goes on with it.
    again = client(stage, backend, stops)
    assert await states(again) == {"l1.0": STOPPING}
    stage.agenda.advance(50)
    assert await states(again) == {"l1.0": STOPPING}
    stage.agenda.advance(35)
    assert await states(again) == {}
    assert machine.cause is Cause.RELEASED


async def test_other_users_jobs_make_ours_wait(stage: Stage) -> None:
    backend = stage.batch(machines=4, others=1.0)
    assert backend.free == 0
    provider = client(stage, backend)
    await provider.apply(Change(launch=(request(2, together=True),)))
    stage.agenda.advance(1)
    assert set((await states(provider)).values()) == {QUEUED}
    for _ in range(60):
        stage.agenda.advance(10)
        if RUNNING in (await states(provider)).values():
            break
    assert set((await states(provider)).values()) == {RUNNING}


async def test_nothing_starts_while_the_system_is_shut(stage: Stage) -> None:
    backend = stage.batch()
    backend.shut(60.0)
    provider = client(stage, backend)
    await provider.apply(Change(launch=(request(),)))
    stage.agenda.advance(59)
    assert await states(provider) == {"l1.0": QUEUED}
    stage.agenda.advance(2)
    assert await states(provider) == {"l1.0": RUNNING}


def test_an_attempt_to_end_a_strangers_job_is_noted_and_does_nothing(stage: Stage) -> None:
    backend = stage.batch(strangers=2)
    theirs = [one.native_id for one in backend.strangers]
    backend.cancel(theirs, OURS)
    backend.terminate(theirs, OURS)
    stage.agenda.advance(60)
    assert len(backend.trespasses) == 4
    assert {one.phase for one in backend.strangers} == {Phase.UP}
