"""What a unit test must not leave behind in the process that runs the next one."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(autouse=True)
def orphans_are_inits() -> Iterator[None]:
    """Take back what a wrapper or bootstrap in a test does to its process: nobody here reaps orphans."""
    yield
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
