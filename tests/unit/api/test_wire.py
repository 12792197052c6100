from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heliostat.api import wire
from heliostat.model.report import StatusReport, TypeReport
from heliostat.ports.journal import Event
from tests.unit.api.fakes import EVENTS, report


def test_a_report_survives_the_way_there_and_back() -> None:
    sent = report()
    assert wire.status_from(wire.loads(wire.dumps(sent))) == sent


def test_events_survive_the_way_there_and_back() -> None:
    assert wire.events_from(wire.loads(wire.dumps({"events": EVENTS}))) == EVENTS


def test_a_key_of_a_newer_controller_is_left_out_and_a_default_fills_in() -> None:
    data: dict[str, Any] = {"at_s": 1.0, "kind": "launch", "text": "x", "colour": "red"}
    assert wire.build(Event, data) == Event(1.0, "launch", "x")


def test_a_missing_key_names_itself() -> None:
    data = json.loads(wire.dumps(report()))
    del data["phase"]
    with pytest.raises(wire.WireError, match="StatusReport came without «phase»"):
        wire.build(StatusReport, data)


def test_optional_values_may_be_null() -> None:
    plain = wire.to_plain(TypeReport("gpu", "local", 1, 1, 1, 0, 2, backoff_until_s=None))
    assert wire.build(TypeReport, plain).backoff_until_s is None


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.loads(body)


def test_a_list_of_something_else_is_refused() -> None:
    data = json.loads(wire.dumps(report())) | {"instances": {"w1": 1}}
    with pytest.raises(wire.WireError, match="a list is expected"):
        wire.status_from(data)


def test_a_status_of_the_previous_version_is_read() -> None:
    """A controller that was not restarted since an upgrade still answers as it did."""
    previous = Path(__file__).parent / "previous" / "status-1.json"
    found = wire.status_from(wire.loads(previous.read_bytes()))
    assert (found.cluster_name, found.phase) == ("prev", "running")
    assert [one.name for one in found.instances] == ["w1"]
    assert (found.journal, found.version) == ("", "")
