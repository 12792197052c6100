"""How many examples the property tests draw, and how a failure is seen again.

`HYPOTHESIS_PROFILE` decides. `nightly`: many more, and others each time. `ci`, the default: worlds are those
of the first so many seeds, the same on any machine. What is drawn choice by choice is the same only while the
same modules are loaded, as Hypothesis takes constants from them. A failure in a world names its seed:
`world_of(Random(seed))` is the same world again, any day. Others come with a line for `@reproduce_failure`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
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
    return settings(max_examples=count * (TIMES if _nightly() else 1), phases=phases)


def each_seed(count: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test with the seeds below `count` in CI, and in a nightly run with many more, drawn anew."""

    def of_all(test: Callable[..., None]) -> Callable[..., None]:
        found = given(seeds)(test)
        if _nightly():
            return many(count)(found)
        for seed in reversed(range(count)):
            found = example(seed)(found)
        return settings(phases=[Phase.explicit])(found)

    return of_all


def _nightly() -> bool:
    return settings.default.max_examples != USUAL


def timeout() -> pytest.MarkDecorator:
    """Return the mark of a test of many examples: how long it may take, here or in a nightly run."""
    return pytest.mark.timeout(NIGHTLY_TIMEOUT_S if _nightly() else TIMEOUT_S)
