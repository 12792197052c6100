"""What `--auto` does, and at which step."""

from __future__ import annotations

import pytest

from heliostat.cli.train_demo.script import SCENES, Act, Script, dwell_for


def test_it_adds_two_and_lets_one_go() -> None:
    script = Script(dwell=3)
    acts = [script.next_act(size, 3) for size, _ in SCENES]
    assert acts == [Act.ADD, Act.ADD, Act.REMOVE, Act.ENOUGH]
    assert script.is_over
    assert script.next_act(2, 100) is None


@pytest.mark.parametrize(("size", "steps"), [(0, 0), (1, 2), (2, 50), (3, 50)])
def test_nothing_is_done_before_its_time(size: int, steps: int) -> None:
    script = Script(dwell=3)
    assert script.next_act(size, steps) is None
    assert script.next_act(1, 3) is Act.ADD


def test_what_was_asked_for_is_asked_for_once() -> None:
    script = Script(dwell=1)
    assert script.next_act(1, 1) is Act.ADD
    assert [script.next_act(1, steps) for steps in range(2, 50)] == [None] * 48


@pytest.mark.parametrize(("steps", "dwell"), [(8, 1), (10, 2), (160, 32), (1, 1)])
def test_a_part_of_the_steps_is_made_at_each_size(steps: int, dwell: int) -> None:
    assert dwell_for(steps) == dwell
