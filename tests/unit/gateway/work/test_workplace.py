"""What is said where there is no cluster. With a driver: tests/integration/gateway/test_workplace.py."""

from __future__ import annotations

import pytest

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.work import workplace
from heliostat.gateway.work.workplace import DriverCommand, Workplace, WorkSettings
from heliostat.model.report import StatusReport
from heliostat.ports.errors import HeliostatError


async def nobody() -> StatusReport | None:
    return None


@pytest.mark.parametrize(
    ("absence", "told"),
    [
        (HeliostatError("demo does not run here"), "the cluster is down; nothing was begun"),
        (None, "the cluster does not answer; nothing was begun"),
    ],
)
async def test_whoever_calls_without_a_cluster_is_told(
    monkeypatch: pytest.MonkeyPatch, absence: HeliostatError | None, told: str
) -> None:
    def driver() -> DriverCommand:
        if absence is not None:
            raise absence
        return DriverCommand(["false"], {})

    monkeypatch.setattr(workplace, "READY_TIMEOUT_S", 0.5)
    found = Workplace(WorkSettings(driver), nobody)
    found.start()
    with pytest.raises(CallError) as caught:
        await found.functions()
    assert (caught.value.code, caught.value.message) == (Code.UNAVAILABLE, told)
    assert found.absence == str(absence or "")
    await found.aclose(0.0)
