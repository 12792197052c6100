"""The production journal on the simulated disk: it survives its writer, and a full disk is an error."""

from __future__ import annotations

import pytest

from heliostat.model.instance import InstanceIntent, Intent
from heliostat.ports.errors import JournalError
from heliostat.ports.journal import Event
from heliostat.sim.journal import Disk


def intent(name: str) -> InstanceIntent:
    return InstanceIntent(name, name, "cpu", "batch", "shape", Intent.WANTED, 1.0, "for a test")


def events(text: str = "x") -> list[Event]:
    return [Event(1.0, "launch", text)]


def test_what_was_written_is_there_for_the_next_controller() -> None:
    disk = Disk()
    disk.open("uid").record_intents([intent("l1.0")], events())
    following = disk.open("uid")
    assert [one.instance_id for one in following.intents()] == ["l1.0"]
    assert [one.kind for one in following.events()] == ["launch"]
    assert disk.open("another").intents() == ()


def test_a_full_disk_refuses_whole_transactions_and_forgets_nothing() -> None:
    disk = Disk()
    journal = disk.open("uid")
    journal.record_intents([intent("l1.0")], [])
    disk.fill()
    with pytest.raises(JournalError, match="free some space"):
        journal.record_intents([intent("l2.0")], events("x" * 20_000))
    assert [one.instance_id for one in journal.intents()] == ["l1.0"]
    disk.free()
    journal.record_intents([intent("l2.0")], events("x" * 20_000))
    assert [one.instance_id for one in journal.intents()] == ["l1.0", "l2.0"]
