"""The local provider beyond the port's contract: GPUs, crashes at any line, deaf processes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heliostat.model.instance import (
    BackendInstance,
    BackendState,
    Change,
    LaunchRequest,
    OfferQuery,
    Role,
)
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.errors import InsufficientCapacity, InvalidRequest, Unavailable
from heliostat.ports.provider import ClusterIdentity, Outcome, ProviderContext
from heliostat.providers.local import inventory, lifecycle, words
from heliostat.providers.local import provider as provider_module
from heliostat.providers.local.processes import Identity, families, is_alive, stat_of
from heliostat.providers.local.provider import LocalProvider, machine_gpus
from heliostat.providers.local.records import Record, Records

STAND_IN = Path(__file__).parent / "stand_in.py"
GPU = NodeType("gpu", "local", Resources.of({"CPU": 1, "GPU": 1, "memory": 1}), "s", max_workers=9)
CPU = NodeType("cpu", "local", Resources.of({"CPU": 1, "memory": 1}), "s", max_workers=9)
DEADLINE_S = 30.0

Rows = dict[str, BackendInstance]


class World:
    """One place on disk, and providers made on it one after the other."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.uid = f"uid{place.name}{os.getpid()}"
        self.options: dict[str, object] = {"gpus": 4, "cpus": 8, "memory": "8GiB", "terminate_grace_s": 20}
        self.head: Mapping[str, float] = {"CPU": 1, "GPU": 1}
        self.environment: dict[str, str] = {"PATH": "/usr/bin:/bin"}
        self.made: list[LocalProvider] = []

    def provider(self) -> LocalProvider:
        identity = ClusterIdentity("demo", self.uid, "me")
        context = ProviderContext(
            identity, self.options, str(self.place), str(self.place / "logs"), str(STAND_IN), self.head
        )
        made = LocalProvider(context, environment=self.environment)
        self.made.append(made)
        return made

    @property
    def records(self) -> Records:
        return Records(self.place / "i")

    def record(self, instance_id: str) -> Record:
        return next(one for one in self.records.all(self.uid) if one.instance_id == instance_id)

    async def clean_up(self) -> None:
        # One at a time: what else looks after the same records would tidy them away meanwhile.
        for one in self.made:
            await one.aclose()
        self.options["terminate_grace_s"] = 1
        for record in self.records.all(self.uid):
            self.records.save(replace(record, grace_s=0.5))
        provider = self.provider()
        rows = await listed(provider)
        await provider.apply(Change(terminate=tuple(rows)))
        await until(provider, lambda rows: not rows)
        await provider.aclose()
        assert families(self.uid, {}) == {}


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(lifecycle, "LEFTOVERS_GRACE_S", 0.3)
    made = World(tmp_path)
    yield made
    await made.clean_up()


def request(count: int = 1, launch_id: str = "l1", node_type: NodeType = CPU, **start: Any) -> LaunchRequest:
    return LaunchRequest(launch_id, node_type, count, start)


async def listed(provider: LocalProvider) -> Rows:
    return {row.instance_id: row for row in await provider.instances()}


async def until(provider: LocalProvider, condition: Callable[[Rows], bool]) -> Rows:
    async with asyncio.timeout(DEADLINE_S):
        while not condition(rows := await listed(provider)):
            await asyncio.sleep(0.02)
        return rows


async def running(provider: LocalProvider, asked: LaunchRequest) -> Rows:
    assert await provider.apply(Change(launch=(asked,))) == Outcome()
    ids = asked.instance_ids
    return await until(provider, lambda rows: all(rows[one].state is BackendState.RUNNING for one in ids))


# GPUs.


async def test_workers_get_gpus_of_their_own_beside_the_heads(world: World) -> None:
    provider = world.provider()
    rows = await running(provider, request(2, node_type=GPU, behaviour="dump"))
    assert [(row.native_id, row.slot) for row in rows.values()] == [("w1", "GPU 1"), ("w2", "GPU 2")]
    seen = []
    for instance_id in rows:
        dumped = json.loads((world.place / "i" / instance_id / "status.environ").read_text())
        seen.append(dumped["CUDA_VISIBLE_DEVICES"])
        assert dumped["HELIOSTAT_INSTANCE_ID"] == dumped["RAY_CLOUD_INSTANCE_ID"] == instance_id
    assert seen == ["1", "2"]


async def test_a_worker_without_gpus_sees_none(world: World) -> None:
    provider = world.provider()
    rows = await running(provider, request(behaviour="dump"))
    assert rows["l1.0"].slot is None
    dumped = json.loads((world.place / "i/l1.0/status.environ").read_text())
    assert dumped["CUDA_VISIBLE_DEVICES"] == ""


async def test_out_of_gpus_in_words(world: World) -> None:
    provider = world.provider()
    outcome = await provider.apply(Change(launch=(request(4, node_type=GPU),)))
    assert set(outcome.failed_instances) == {"l1.3"}
    error = outcome.failed_instances["l1.3"]
    assert isinstance(error, InsufficientCapacity)
    assert str(error) == "no GPU is left: 0–3 are taken by head, w1, w2, w3"
    (offer,) = await provider.offers([OfferQuery(GPU, 2)])
    assert (offer.count, offer.why) == (0, str(error))
    late = await provider.apply(Change(launch=(request(2, "l2", GPU),)))
    assert {key: str(value) for key, value in late.failed_launches.items()} == {"l2": str(error)}


async def test_of_a_gang_without_room_for_all_none_is_started(world: World) -> None:
    provider = world.provider()
    await running(provider, request(2, node_type=GPU))
    gang = replace(request(2, "l2", node_type=GPU), together=True)
    refused = (await provider.apply(Change(launch=(gang,)))).failed_launches["l2"]
    assert isinstance(refused, InsufficientCapacity)
    assert "GPU" in str(refused)
    assert set(await listed(provider)) == {"l1.0", "l1.1"}
    await running(provider, replace(request(1, "l3", node_type=GPU), together=True))


async def test_an_outer_selection_is_respected(world: World) -> None:
    world.environment["CUDA_VISIBLE_DEVICES"] = "5,MIG-7,6"
    world.options["gpus"] = 3
    assert machine_gpus(world.options, world.environment) == ("5", "MIG-7", "6")
    rows = await running(world.provider(), request(2, node_type=GPU))
    assert [row.slot for row in rows.values()] == ["GPU MIG-7", "GPU 6"]


async def test_gpus_of_one_that_failed_are_free_again_before_it_is_terminated(world: World) -> None:
    world.options["gpus"] = 2
    provider = world.provider()
    await provider.apply(Change(launch=(request(node_type=GPU, behaviour="crash"),)))
    await until(provider, lambda rows: rows["l1.0"].state is BackendState.FAILED)
    rows = await running(provider, request(1, "l2", GPU))
    assert rows["l2.0"].slot == "GPU 1"
    assert rows["l2.0"].native_id == "w2", "the name of the failed one is still in the list"


async def test_a_hanging_nvidia_smi_stops_gpu_types_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "NVIDIA_SMI", ("/bin/sleep", "60"))
    monkeypatch.setattr(inventory, "NVIDIA_SMI_DEADLINE_S", 0.2)
    world.options["gpus"] = "auto"
    provider = world.provider()
    outcome = await provider.apply(Change(launch=(request(1, "l1", GPU), request(1, "l2", CPU))))
    assert list(outcome.failed_launches) == ["l1"]
    assert isinstance(outcome.failed_launches["l1"], Unavailable)
    offers = await provider.offers([OfferQuery(GPU, 1), OfferQuery(CPU, 1)])
    assert [offer.count for offer in offers] == [0, 1]
    assert offers[0].why is not None
    assert offers[0].why.startswith("nvidia-smi did not answer")
    assert any("nvidia-smi" in line for line in await provider.check([GPU]))


# Refusals.


async def test_refusals_for_good(world: World) -> None:
    provider = world.provider()
    half = replace(GPU, resources=Resources.of({"GPU": 0.5}))
    head = replace(request(1, "l3"), role=Role.HEAD)
    asked = (request(1, "l1", half), request(1, "../l2"), head)
    outcome = await provider.apply(Change(launch=asked))
    assert list(outcome.failed_launches) == ["l1", "../l2", "l3"]
    assert all(isinstance(error, InvalidRequest) for error in outcome.failed_launches.values())
    assert "whole GPUs only" in str(outcome.failed_launches["l1"])
    assert await listed(provider) == {}


async def test_a_runtime_folder_that_is_none(world: World) -> None:
    (world.place / "i").write_text("a file where the folder should be")
    provider = world.provider()
    for call in (provider.instances(), provider.apply(Change(launch=(request(),)))):
        with pytest.raises(Unavailable, match="Not a directory"):
            await call
    (offer,) = await provider.offers([OfferQuery(CPU, 1)])
    assert offer.count == 0
    (world.place / "i").unlink()


async def test_a_start_that_fails_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    provider = world.provider()
    outcome = await provider.apply(Change(launch=(request(),)))
    assert isinstance(outcome.failed_launches["l1"], Unavailable)
    assert await listed(provider) == {}
    assert os.listdir(world.place / "i") == []


# Ends.


async def test_a_crash_is_told_with_its_last_words_and_leaves_no_zombie(world: World) -> None:
    provider = world.provider()
    await provider.apply(Change(launch=(request(behaviour="crash"),)))
    rows = await until(provider, lambda rows: rows["l1.0"].state is BackendState.FAILED)
    assert rows["l1.0"].detail == "exit code 7: bootstrap: no such cluster"
    process = world.record("l1.0").process
    assert process is not None
    assert stat_of(process.pid) is None
    assert await provider.last_words("l1.0", lines=1) == ["a line of somebody else"]


async def test_an_ended_child_is_collected_without_anybody_asking(world: World) -> None:
    provider = world.provider()
    await provider.apply(Change(launch=(request(behaviour="crash"),)))
    process = world.record("l1.0").process
    assert process is not None
    async with asyncio.timeout(DEADLINE_S):
        while stat_of(process.pid) is not None:
            await asyncio.sleep(0.02)


async def test_a_launch_prunes_old_logs_but_no_living_workers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "LOGS_KEPT", 0)
    provider = world.provider()
    await running(provider, request())
    logs = world.place / "logs"
    (logs / "lgone.0.log").write_text("of one that is no more")
    os.utime(logs / "l1.0.log", (1000, 1000))
    await running(provider, request(1, "l2"))
    assert sorted(os.listdir(logs)) == ["l1.0.log", "l2.0.log"]
    assert "here I am" in (await provider.last_words("l1.0"))[-1]


async def test_a_deaf_process_is_killed_after_its_grace_and_not_before(world: World) -> None:
    world.options["terminate_grace_s"] = 1.0
    provider = world.provider()
    await running(provider, request(behaviour="deaf"))
    asked_s = time.monotonic()
    await provider.apply(Change(terminate=("l1.0",)))
    noted = world.record("l1.0").stop
    await provider.apply(Change(terminate=("l1.0",)))
    assert world.record("l1.0").stop == noted, "asked twice, it does not live longer"
    assert (await listed(provider))["l1.0"].state is BackendState.STOPPING
    await until(provider, lambda rows: not rows)
    assert time.monotonic() - asked_s >= 1.0


async def test_children_left_behind_are_killed_with_their_instance_alone(world: World) -> None:
    provider = world.provider()
    await running(provider, request(2, behaviour="child"))
    async with asyncio.timeout(DEADLINE_S):
        while any(len(family) < 2 for family in families(world.uid, {}).values()):
            await asyncio.sleep(0.02)
    asked_s = time.monotonic()
    await provider.apply(Change(terminate=("l1.0",)))
    await until(provider, lambda rows: "l1.0" not in rows)
    assert time.monotonic() - asked_s < 10, "they are not given the whole grace of the bootstrap"
    assert {key: len(family) for key, family in families(world.uid, {}).items()} == {"l1.1": 2}


@pytest.mark.parametrize("behaviour", ["bare", "other"])
@pytest.mark.parametrize("crash", [False, True])
async def test_children_without_the_tag_are_known_by_their_session(
    behaviour: str, crash: bool, world: World
) -> None:
    provider = world.provider()
    await running(provider, request(behaviour=behaviour))
    (line,) = await provider.last_words("l1.0", lines=1)
    pid = int(line.removeprefix("child "))
    process = world.record("l1.0").process
    assert process is not None
    assert families(world.uid, {}) == {"l1.0": [process]}, "the tag alone does not find the child"
    if crash:
        os.kill(process.pid, 9)
        await until(provider, lambda rows: rows["l1.0"].state is BackendState.FAILED)
        assert world.record("l1.0").holds_its_slot
    await provider.apply(Change(terminate=("l1.0",)))
    await until(provider, lambda rows: not rows)
    stat = stat_of(pid)
    assert stat is None or stat.state == "Z"


async def test_a_slot_is_not_free_while_children_of_a_killed_bootstrap_live(world: World) -> None:
    world.options["gpus"] = 2
    provider = world.provider()
    await running(provider, request(node_type=GPU, behaviour="child"))
    async with asyncio.timeout(DEADLINE_S):
        while len(families(world.uid, {})["l1.0"]) < 2:
            await asyncio.sleep(0.02)
    process = world.record("l1.0").process
    assert process is not None
    os.kill(process.pid, 9)
    rows = await until(provider, lambda rows: rows["l1.0"].state is BackendState.FAILED)
    assert rows["l1.0"].detail is not None
    assert rows["l1.0"].detail.startswith("killed (SIGKILL")
    outcome = await provider.apply(Change(launch=(request(1, "l2", GPU),)))
    assert str(outcome.failed_launches["l2"]) == "no GPU is left: 0–1 are taken by head, w1"


# The controller dies; the next one takes up.


class Died(BaseException):
    """Stands for a controller that was killed at this very line."""


def _die(*_: object, **__: object) -> None:
    raise Died


async def test_it_died_before_the_process_was_started(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(provider_module, "spawn", _die)
        with pytest.raises(Died):
            await world.provider().apply(Change(launch=(request(node_type=GPU),)))
    again = world.provider()
    rows = await listed(again)
    assert (rows["l1.0"].state, rows["l1.0"].slot) == (BackendState.STARTING, "GPU 1")
    other = await running(again, request(1, "l2", GPU))
    assert other["l2.0"].slot == "GPU 2", "the slot of the first is not given twice"
    monkeypatch.setattr(lifecycle, "SPAWN_BOUND_S", 0.0)
    rows = await listed(again)
    assert rows["l1.0"].state is BackendState.FAILED
    assert rows["l1.0"].detail is not None
    assert "never started" in rows["l1.0"].detail


async def test_it_died_between_start_and_note(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Records, "save", _die)
        with pytest.raises(Died):
            await world.provider().apply(Change(launch=(request(),)))
    assert world.record("l1.0").process is None
    again = world.provider()
    rows = await until(again, lambda rows: rows["l1.0"].state is BackendState.RUNNING)
    assert [world.record("l1.0").process] == families(world.uid, {})["l1.0"]
    assert await again.apply(Change(launch=(request(),))) == Outcome()
    assert {key: len(family) for key, family in families(world.uid, {}).items()} == {"l1.0": 1}
    assert set(rows) == {"l1.0"}


async def test_it_died_between_the_note_of_a_stop_and_the_signal(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.options["terminate_grace_s"] = 0.5
    first = world.provider()
    await running(first, request())
    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "send", _die)
        with pytest.raises(Died):
            await first.apply(Change(terminate=("l1.0",)))
    await first.aclose()
    again = world.provider()
    assert (await listed(again))["l1.0"].state is BackendState.STOPPING
    await until(again, lambda rows: not rows)


async def test_one_that_ran_and_went_unseen_has_ended_not_failed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = world.provider()
    await running(provider, request())
    process = world.record("l1.0").process
    assert process is not None
    monkeypatch.setattr(lifecycle, "reap", lambda _: None)
    os.kill(process.pid, 15)
    rows = await until(provider, lambda rows: rows["l1.0"].state is not BackendState.RUNNING)
    assert rows["l1.0"].state is BackendState.ENDED
    assert rows["l1.0"].detail == (
        "ended while no controller ran, so its exit code is not known: bootstrap: here I am"
    )
    await asyncio.to_thread(os.waitpid, process.pid, 0)


async def test_a_pid_that_is_somebody_elses_now_is_never_touched(world: World) -> None:
    provider = world.provider()
    await running(provider, request())
    real = world.record("l1.0").process
    assert real is not None
    stranger = await asyncio.create_subprocess_exec("/bin/sleep", "300")
    try:
        record = world.record("l1.0")
        world.records.save(replace(record, process=Identity(stranger.pid, real.start_ticks - 1), grace_s=0.2))
        await provider.apply(Change(terminate=("l1.0",)))
        await until(provider, lambda rows: not rows)
        assert stranger.returncode is None
        assert not is_alive(real), "its own processes are known by their tag"
    finally:
        stranger.kill()
        await stranger.wait()


async def test_after_a_reboot_nothing_of_before_lives(world: World) -> None:
    provider = world.provider()
    await running(provider, request())
    world.records.save(replace(world.record("l1.0"), boot_id="before"))
    rows = await listed(provider)
    assert rows["l1.0"].state is BackendState.ENDED


async def test_a_stop_of_one_that_was_never_noted_reaches_its_process(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Records, "save", _die)
        with pytest.raises(Died):
            await world.provider().apply(Change(launch=(request(),)))
    again = world.provider()
    assert await again.apply(Change(terminate=("l1.0",))) == Outcome()
    await until(again, lambda rows: not rows)
    assert families(world.uid, {}) == {}


async def test_half_made_folders_are_swept(world: World) -> None:
    (world.place / "i/.new-l7.0").mkdir(parents=True)
    assert await listed(world.provider()) == {}
    assert os.listdir(world.place / "i") == []


# The event loop stays free.


async def test_the_loop_is_not_blocked_while_workers_are_started(world: World) -> None:
    provider = world.provider()
    lags: list[float] = []

    async def beat() -> None:
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(0.001)
            lags.append(time.monotonic() - before_s)

    heart = asyncio.ensure_future(beat())
    await running(provider, request(4))
    heart.cancel()
    assert len(lags) > 20
    assert sorted(lags)[len(lags) // 2] < 0.05


async def test_probe_and_check(world: World) -> None:
    provider = world.provider()
    plain = NodeType("plain", "local", Resources.of({"CPU": 2}), "s")
    assert set(provider.complete(plain).resources.units()) == {"CPU", "memory", "object_store_memory"}
    wrong = replace(plain, name="wrong", options={"object_store_memory": "much"})
    problems = list(await provider.check([plain, GPU, wrong]))
    assert len(problems) == 1
    assert problems[0].startswith("wrong: object_store_memory is 'much'")
