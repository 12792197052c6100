"""A killed process runs no `finally`, a stopped one goes on later, and the world does not notice either."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from heliostat.sim.loop import VirtualLoop
from heliostat.sim.process import Killed, Process


class Stage(VirtualLoop):
    """A loop that buries its processes when the test is over."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []

    def process(self, name: str) -> Process:
        self.processes.append(Process(self, name))
        return self.processes[-1]


@pytest.fixture
def loop() -> Iterator[Stage]:
    loop = Stage()
    yield loop
    loop.close()
    for process in loop.processes:
        process.bury()


async def works(seen: list[str], every_s: float = 1.0) -> None:
    try:
        while True:
            await asyncio.sleep(every_s)
            seen.append("work")
    finally:
        seen.append("finally")
        await asyncio.sleep(1.0)
        seen.append("after the finally")


def test_a_killed_process_just_stops(loop: Stage) -> None:
    seen: list[str] = []
    process = loop.process("one")

    async def parent() -> None:
        await asyncio.gather(works(seen), works(seen))

    process.start(parent())
    loop.call_later(2.5, process.kill)
    loop.run_until_complete(asyncio.sleep(100.0))
    assert seen == ["work"] * 4


def test_what_is_buried_says_nothing(loop: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []
    process = loop.process("one")
    process.start(works(seen))
    loop.run_until_complete(asyncio.sleep(1.5))
    loop.close()
    process.bury()
    assert seen == ["work", "finally"]
    assert not loop.errors
    assert capsys.readouterr() == ("", "")


def test_timers_and_futures_of_the_dead_are_dropped(loop: Stage) -> None:
    seen: list[str] = []
    process = loop.process("one")
    answer: asyncio.Future[None] = loop.create_future()

    async def asks() -> None:
        asyncio.get_running_loop().call_later(5.0, seen.append, "timer")
        await answer
        seen.append("answer")

    process.start(asks())
    loop.call_later(1.0, process.kill)
    loop.call_later(2.0, answer.set_result, None)
    loop.run_until_complete(asyncio.sleep(10.0))
    assert seen == []


def test_what_it_asked_of_the_world_goes_on(loop: Stage) -> None:
    seen: list[str] = []
    process = loop.process("one")

    async def boots() -> None:
        await asyncio.sleep(3.0)
        seen.append("booted")

    async def asks() -> None:
        loop.apart(5.0, seen.append, "timer")
        loop.task_apart(boots())
        await asyncio.sleep(100)

    process.start(asks())
    loop.call_later(1.0, process.kill)
    loop.run_until_complete(asyncio.sleep(10.0))
    assert seen == ["booted", "timer"]


def test_it_may_die_in_the_midst_of_its_own_call(loop: Stage) -> None:
    seen: list[str] = []
    process = loop.process("one")

    def writes(text: str) -> None:
        process.check()
        seen.append(text)
        if text == "fatal":
            process.kill()
            process.check()

    async def runs() -> None:
        try:
            writes("fatal")
            writes("never")
        finally:
            writes("not in a finally either")

    task = process.start(runs())
    loop.run_until_complete(asyncio.sleep(1.0))
    assert seen == ["fatal"]
    assert isinstance(task.exception(), Killed)


def test_a_stopped_process_goes_on_where_it_was(loop: Stage) -> None:
    seen: list[float] = []
    process = loop.process("one")

    async def ticks() -> None:
        while True:
            await asyncio.sleep(1.0)
            seen.append(loop.time())

    process.start(ticks())
    loop.call_later(2.5, process.freeze)
    loop.call_later(7.5, process.thaw)
    loop.run_until_complete(asyncio.sleep(9.0))
    assert seen == [1.0, 2.0, 7.5, 8.5]


def test_two_processes_are_apart(loop: Stage) -> None:
    first, second = [], []
    one, other = loop.process("one"), loop.process("other")
    one.start(works(first))
    other.start(works(second))
    loop.call_later(1.5, one.kill)
    loop.run_until_complete(asyncio.sleep(3.5))
    assert (first, second) == (["work"], ["work"] * 3)
