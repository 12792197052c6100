"""What a gateway put together keeps from its parts."""

from __future__ import annotations

import io
from pathlib import Path

from heliostat.cli.system import SystemClock
from heliostat.gateway.app import Gateway, Surroundings
from heliostat.gateway.hypha.sign_in import TextDisplay
from heliostat.gateway.work.workplace import DriverCommand, WorkSettings
from heliostat.model.gateway import GatewaySettings
from heliostat.model.report import StatusReport


async def nobody() -> StatusReport | None:
    return None


def test_the_driver_does_not_have_the_gateways_token(tmp_path: Path) -> None:
    around = Surroundings(
        folder=tmp_path,
        socket_path=tmp_path / "socket",
        client_id="heliostat-demo",
        environ={"LAB_TOKEN": "secret"},
        display=TextDisplay(io.StringIO()),
        time=SystemClock(),
        new_id=lambda: "c1",
        about={},
        facts={},
    )
    settings = GatewaySettings("https://hypha.example.org", token_env="LAB_TOKEN")
    work = WorkSettings(lambda: DriverCommand(["true"], {}))
    made = Gateway(settings, around, work=work, status=nobody)
    try:
        assert made.workplace._settings.withheld == {"LAB_TOKEN", "HYPHA_TOKEN"}
    finally:
        made.gate.close()
