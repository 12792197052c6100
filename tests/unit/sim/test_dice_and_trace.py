"""Streams are apart and the same each time; a trace's hash is of every word; the clock jumps."""

from __future__ import annotations

import asyncio

from heliostat.sim.clock import EPOCH_S, SimClock, SimIds
from heliostat.sim.dice import Dice
from heliostat.sim.loop import VirtualLoop
from heliostat.sim.trace import Trace


def test_a_draw_in_one_stream_changes_no_other() -> None:
    one, other = Dice(1), Dice(1)
    one.stream("faults").random()
    assert one.stream("work").random() == other.stream("work").random()
    assert one.stream("work") is one.stream("work")
    assert Dice(2).stream("work").random() != Dice(1).stream("work").random()


def test_the_hash_is_of_every_word_and_of_the_time() -> None:
    def traced(*lines: tuple[float, str]) -> str:
        now = [0.0]
        trace = Trace(lambda: now[0])
        for at_s, word in lines:
            now[0] = at_s
            trace.add("word", word)
        return trace.digest()

    same = traced((1.0, "a"), (2.0, "b"))
    assert same == traced((1.0, "a"), (2.0, "b"))
    assert (
        len({same, traced((1.0, "a"), (2.0, "c")), traced((1.0, "a"), (2.5, "b")), traced((1.0, "a"))}) == 4
    )


def test_lines_are_kept_if_asked_for() -> None:
    trace = Trace(lambda: 12.5, keep=True)
    trace.add("ray", "drain", "n1", None)
    assert trace.lines == ["     12.500  ray       drain n1 None"]
    assert Trace(lambda: 0.0).lines is None


def test_the_wall_clock_jumps_and_the_monotonic_one_does_not() -> None:
    loop = VirtualLoop()
    clock = SimClock(loop)
    loop.run_until_complete(asyncio.wait_for(clock.sleep(10.0), 20.0))
    clock.jump(-3_600.0)
    assert clock.now_s() == EPOCH_S + 10.0 - 3_600.0
    assert clock.monotonic_s() == 10.0


def test_ids_are_new_each_time() -> None:
    ids = SimIds()
    assert [ids.launch_id() for _ in range(3)] == ["l1", "l2", "l3"]
