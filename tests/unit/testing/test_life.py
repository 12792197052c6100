"""What runs in a Life stops where it stands when it is killed, as a process does."""

from __future__ import annotations

import asyncio

import pytest

from heliostat.testing.life import Life

Told = list[str]


async def work(told: Told) -> str:
    """Take three steps, and clean up."""
    try:
        for number in (1, 2):
            told.append(f"step {number}")
            await asyncio.sleep(0)
        return "done"
    finally:
        told.append("cleaned up")


@pytest.mark.parametrize(
    ("steps", "seen"),
    [
        (0, []),
        (1, ["step 1"]),
        (2, ["step 1", "step 2"]),
    ],
)
async def test_it_is_killed_at_each_await_and_cleans_up_nothing(steps: int, seen: Told) -> None:
    told: Told = []
    life = Life()
    await life.crash(work(told), after=steps)
    for _ in range(5):
        await asyncio.sleep(0)
    assert told == seen
    await life.bury()
    assert told == ([*seen, "cleaned up"] if seen else [])


async def test_who_needs_no_more_steps_lives() -> None:
    told: Told = []
    life = Life()
    assert await life.run(work(told)) == "done"
    assert life.taken == 3
    await life.crash(work(told), after=3)
    assert told == ["step 1", "step 2", "cleaned up"] * 2


async def test_tasks_that_it_has_begun_die_with_it_and_others_live() -> None:
    told: Told = []

    async def begin() -> None:
        await asyncio.gather(work(told), asyncio.sleep(0))

    other: Told = []
    beside = asyncio.ensure_future(work(other))
    life = Life()
    await life.crash(begin(), after=2)
    await beside
    assert (told, other) == (["step 1"], ["step 1", "step 2", "cleaned up"])
    await life.bury()


async def test_the_dead_hear_of_no_timeout() -> None:
    told: Told = []

    async def bounded() -> None:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(0)
                await asyncio.sleep(60)
        except TimeoutError:
            told.append("too late")

    life = Life()
    await life.crash(bounded(), after=1)
    await asyncio.sleep(0.05)
    assert told == []
    await life.bury()


async def test_a_thread_ends_its_work_and_nobody_hears_of_it() -> None:
    told: Told = []
    life = Life()

    async def in_a_thread() -> None:
        await asyncio.to_thread(told.append, "in a thread")
        told.append("heard")

    await life.crash(in_a_thread(), after=1)
    assert told == ["in a thread"]
    assert await asyncio.to_thread(lambda: "others have threads") == "others have threads"
    await life.bury()


async def test_a_call_is_cancelled_at_each_await() -> None:
    ends = []
    for steps in range(5):
        told: Told = []
        cancelled = await Life().cancel(work(told), after=steps)
        ends.append((cancelled, told[-1:]))
    assert [cancelled for cancelled, _ in ends] == [True, True, True, False, False]
    assert all(last == ["cleaned up"] for _, last in ends)
