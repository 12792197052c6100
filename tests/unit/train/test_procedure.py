"""Procedures: the same text in a thread and on an event loop, and what an interruption leaves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from heliostat.train.procedure import Hook, Procedure, run, run_async
from tests.unit.train.fake_cluster import FakeCluster
from tests.unit.train.test_group import empty, group_on


def adding(steps: list[Callable[[], int]], ends: list[str]) -> Procedure[int]:
    total = 0
    try:
        for step in steps:
            total += yield step
    finally:
        ends.append("over")
    return total


def failing() -> int:
    raise OSError("no route")


def test_each_step_is_sent_what_came_of_it() -> None:
    ends: list[str] = []
    assert run(adding([lambda: 1, lambda: 2], ends)) == 3
    assert ends == ["over"]


async def test_the_same_on_an_event_loop() -> None:
    ends: list[str] = []
    assert await run_async(adding([lambda: 1, lambda: 2], ends)) == 3
    assert ends == ["over"]


def test_what_a_step_raises_ends_the_procedure_where_it_stands() -> None:
    ends: list[str] = []
    with pytest.raises(OSError, match="no route"):
        run(adding([failing, lambda: 2], ends))
    assert ends == ["over"]


async def test_hooks_run_on_the_event_loop_and_steps_beside_it() -> None:
    async def later() -> threading.Thread:
        return threading.current_thread()

    def procedure() -> Procedure[tuple[Any, Any, Any]]:
        return (yield threading.current_thread), (yield Hook(threading.current_thread)), (yield Hook(later))

    beside, hook, awaited = await run_async(procedure())
    assert hook is awaited is threading.current_thread()
    assert beside is not hook


async def test_a_step_in_hand_is_over_before_a_cancelled_task_goes_on() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()
    ends: list[str] = []

    def slow() -> int:
        begun.set()
        assert go_on.wait(10)
        done.set()
        return 1

    task = asyncio.ensure_future(run_async(adding([slow], ends)))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    asyncio.get_running_loop().call_later(0.01, go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()
    assert ends == ["over"]


async def test_nothing_is_left_when_the_wait_for_min_size_is_cancelled() -> None:
    cluster = FakeCluster("a")
    pause = cluster.pause
    paused = threading.Event()

    def noted(*args: Any, **rest: Any) -> None:
        pause(*args, **rest)
        paused.set()

    cluster.pause = noted  # type: ignore[method-assign]

    async def enter() -> None:
        async with group_on(cluster, min_size=2, timeout_s=1e9):
            raise AssertionError("there is no room for two")

    task = asyncio.ensure_future(enter())
    await asyncio.to_thread(paused.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert empty(cluster)
