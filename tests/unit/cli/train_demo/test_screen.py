"""How a training is told in words."""

from __future__ import annotations

import io

import pytest

from heliostat.cli.train_demo.figures import Change, Step
from heliostat.cli.train_demo.screen import Screen, of_change, of_step, screen_on

STEP = Step(5.0, 12, 3, 312.4, 0.51234, 0.001, quiet=True)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (Change(1.0, True, "m1", "ab", 1), "+ a member joined on w1; now 1 member"),
        (
            Change(1.0, False, "m3", "ab", 2, "drained", "its node drains, 29 s left"),
            "- a member left w1: drained (its node drains, 29 s left); now 2 members",
        ),
        (Change(1.0, False, "m3", "ab", 2, "died"), "- a member left w1: died; now 2 members"),
    ],
)
def test_a_change_in_words(change: Change, text: str) -> None:
    assert of_change(change, "w1") == text


def test_a_step_in_words() -> None:
    assert of_step(STEP) == "step  12: 3 members,  312 samples/s, loss 0.512"


def test_in_a_pipe_each_step_is_a_line_of_its_own() -> None:
    stream = io.StringIO()
    with screen_on(stream) as screen:
        screen.step(STEP)
        screen.print("over")
    assert stream.getvalue().splitlines() == [f"  0.0 s  {of_step(STEP)}", "over"]


def test_on_a_terminal_steps_are_in_a_live_line_and_the_rest_stays() -> None:
    from rich.console import Console
    from rich.live import Live

    stream = io.StringIO()
    terminal = Console(file=stream, force_terminal=True, width=120)
    with Live("", console=terminal, auto_refresh=False, transient=True) as live:
        screen = Screen(stream, live)
        screen.step(STEP)
        screen.print("w1 is [running]")
    assert of_step(STEP) in stream.getvalue()
    assert "w1 is [running]" in stream.getvalue()
