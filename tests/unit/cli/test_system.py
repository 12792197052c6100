"""The adapter to this host: its local time."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from heliostat.cli.system import SystemClock


@pytest.fixture
def india(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "IST-5:30")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("india")
def test_how_far_local_time_is_ahead_of_utc() -> None:
    assert SystemClock().utc_offset_s() == 5.5 * 3600
