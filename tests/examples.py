"""How many examples the property tests draw, and how a failure is seen again.

`HYPOTHESIS_PROFILE` decides. `ci`, the default: always the same ones. `nightly`: many more, and others
each time. A world is drawn from a seed, and a failure names it: `world_of(Random(seed))` is the same world
again, on any day. What was drawn choice by choice comes with a line for `@reproduce_failure`.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

USUAL, NIGHTLY = 60, 2000

TIMES = 10
"""`many` is so many times more in a nightly run: what takes a minute in CI takes ten."""

TIMEOUT_S, NIGHTLY_TIMEOUT_S = 300, 3600
"""Of one test of many examples. One stopped in coverage's code leaves its lock held: the run hangs."""


def load(profile: str) -> None:
    """Let a profile decide for all tests that are collected from now on."""
    settings.register_profile(
        "ci",
        deadline=None,
        max_examples=USUAL,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
        print_blob=True,
    )
    settings.register_profile(
        "nightly", parent=settings.get_profile("ci"), max_examples=NIGHTLY, derandomize=False
    )
    settings.load_profile(profile)


seeds = st.integers(0, 2**24 - 1)
"""Worlds are drawn from a seed and not choice by choice: there are more of them in the same time. Seeds are
small, so that Hypothesis draws them evenly."""


def many(count: int) -> settings:
    """Return settings for so many examples in CI, and in a nightly run for `TIMES` as many.

    For what is drawn from a seed: a smaller seed is no smaller world, so failures are not made smaller.
    """
    phases = [phase for phase in settings.default.phases if phase is not Phase.shrink]
    times = 1 if settings.default.max_examples == USUAL else TIMES
    return settings(max_examples=count * times, phases=phases)


def timeout() -> pytest.MarkDecorator:
    """Return the mark of a test of many examples: how long it may take, here or in a nightly run."""
    return pytest.mark.timeout(TIMEOUT_S if settings.default.max_examples == USUAL else NIGHTLY_TIMEOUT_S)
