"""The virtual loop keeps asyncio's promises, jumps over time, and does nothing real."""

from __future__ import annotations

import asyncio
import time

import pytest

from heliostat.sim.dice import Dice
from heliostat.sim.loop import STEPS_PER_INSTANT, Stuck, VirtualLoop


async def marks(seen: list[str], name: str, *, times: int, every_s: float) -> str:
    for number in range(times):
        await asyncio.sleep(every_s)
        seen.append(f"{name}{number}")
    return name


def test_a_year_passes_at_once_and_timers_ring_in_order() -> None:
    loop, seen = VirtualLoop(), []
    loop.call_later(3.0, seen.append, "c")
    loop.call_later(1.0, seen.append, "a")
    loop.call_at(2.0, seen.append, "b")
    began_s = time.perf_counter()
    loop.run_until_complete(asyncio.sleep(365 * 86_400.0))
    assert seen == ["a", "b", "c"]
    assert loop.time() == 365 * 86_400.0
    assert time.perf_counter() - began_s < 5.0


def test_gather_returns_in_the_order_asked() -> None:
    loop, seen = VirtualLoop(), []

    async def both() -> list[str]:
        return await asyncio.gather(
            marks(seen, "slow", times=2, every_s=2.0), marks(seen, "fast", times=2, every_s=0.5)
        )

    assert loop.run_until_complete(both()) == ["slow", "fast"]
    assert seen == ["fast0", "fast1", "slow0", "slow1"]


def test_a_deadline_cancels_at_its_time() -> None:
    loop, seen = VirtualLoop(), []

    async def hang() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            seen.append(loop.time())

    async def bounded() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(hang(), 5.0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7.0):
                await hang()

    loop.run_until_complete(bounded())
    assert seen == [5.0, 12.0]


def test_wait_for_an_event_that_comes_first() -> None:
    loop = VirtualLoop()

    async def woken() -> float:
        event = asyncio.Event()
        loop.call_later(2.0, event.set)
        await asyncio.wait_for(event.wait(), 60.0)
        return loop.time()

    assert loop.run_until_complete(woken()) == 2.0


def test_cancelled_tasks_and_timers_do_nothing() -> None:
    loop, seen = VirtualLoop(), []

    async def cancels() -> None:
        task = asyncio.create_task(marks(seen, "x", times=3, every_s=1.0))
        loop.call_later(1.5, seen.append, "never").cancel()
        await asyncio.sleep(1.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(10)

    loop.run_until_complete(cancels())
    assert seen == ["x0"]


def test_a_lock_lets_one_in_at_a_time() -> None:
    loop, seen = VirtualLoop(Dice(1).stream("order")), []

    async def enters(lock: asyncio.Lock, name: str) -> None:
        async with lock:
            seen.append(f"+{name}")
            await asyncio.sleep(1.0)
            seen.append(f"-{name}")

    async def all_of_them() -> None:
        lock = asyncio.Lock()
        await asyncio.gather(*(enters(lock, name) for name in "abcd"))

    loop.run_until_complete(all_of_them())
    assert [one[0] for one in seen] == ["+", "-"] * 4
    assert [one[1] for one in seen[::2]] == [one[1] for one in seen[1::2]]


def order_of(seed: int | None) -> list[str]:
    loop, seen = VirtualLoop(None if seed is None else Dice(seed).stream("order")), []

    async def all_of_them() -> None:
        await asyncio.gather(*(marks(seen, name, times=3, every_s=1.0) for name in "abcdef"))

    loop.run_until_complete(all_of_them())
    return seen


def test_what_is_ready_runs_in_order_or_in_an_order_that_the_seed_decides() -> None:
    assert order_of(None) == [f"{name}{number}" for number in range(3) for name in "abcdef"]
    assert order_of(7) == order_of(7)
    assert sorted(order_of(7)) == sorted(order_of(None))
    assert len({tuple(order_of(seed)) for seed in range(5)}) == 5


def test_steps_are_counted_and_hooks_see_each() -> None:
    loop, seen = VirtualLoop(), []
    loop.on_step.append(lambda: seen.append(loop.steps))
    loop.run_until_complete(asyncio.sleep(1.0))
    assert seen == list(range(1, loop.steps + 1))


def test_what_can_never_happen_is_said() -> None:
    with pytest.raises(Stuck, match="nothing is left"):
        VirtualLoop().run_until_complete(asyncio.Event().wait())


def test_a_loop_without_time_is_said() -> None:
    loop = VirtualLoop()

    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match="no time passed"):
        loop.run_until_complete(spin())
    assert loop.steps == STEPS_PER_INSTANT + 1


async def in_a_thread() -> None:
    await asyncio.to_thread(print)


async def a_connection() -> None:
    await asyncio.open_connection("127.0.0.1", 1)


async def a_process() -> None:
    await asyncio.create_subprocess_exec("true")


async def a_signal() -> None:
    asyncio.get_running_loop().add_signal_handler(15, print)


@pytest.mark.parametrize("real", [in_a_thread, a_connection, a_process, a_signal])
def test_nothing_real_is_done(real: object) -> None:
    with pytest.raises(NotImplementedError):
        VirtualLoop().run_until_complete(real())  # type: ignore[operator]
