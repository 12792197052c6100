"""Long messages while they arrive: bounded, whoever sends them."""

from __future__ import annotations

import pytest

from heliostat.gateway.hypha import incoming
from heliostat.gateway.hypha.incoming import Incoming, TooMuch


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def store(now: list[float]) -> Incoming:
    return Incoming(lambda: now[0], message_max_bytes=10)


def test_parts_come_in_any_order_and_replace_each_other(store: Incoming) -> None:
    store["a"] = {}
    store["a"][1] = b"12345"
    store["a"][0] = b"123"
    store["a"][1] = b"1234567"
    assert (store["a"][0] + store["a"][1], store.size) == (b"1231234567", 10)
    del store["a"]
    assert store.size == 0


def test_a_message_that_is_too_large_is_forgotten(store: Incoming) -> None:
    store["a"] = {}
    store["a"][0] = b"1234567890"
    with pytest.raises(TooMuch, match="larger than 10 bytes"):
        store["a"][1] = b"1"
    assert "a" not in store


def test_room_is_made_by_dropping_what_nobody_sends_on(store: Incoming, now: list[float]) -> None:
    for key in "abcd":
        store[key] = {}
        store[key][0] = b"1234567890"
    store["e"] = {}
    with pytest.raises(TooMuch, match="too much just now"):
        store["e"][0] = b"1"
    now[0] += incoming.STALE_S + 1
    store["e"] = {}
    store["e"][0] = b"1"
    assert list(store) == ["e"]


def trickle(store: Incoming, now: list[float], seconds: float) -> None:
    """Send a byte again of each message now and then, as who wants to hold the gateway shut does."""
    for _ in range(int(seconds // (incoming.STALE_S - 1))):
        now[0] += incoming.STALE_S - 1
        for parts in list(store.values()):
            parts[0] = parts[0]


def test_who_sends_slowest_makes_room(store: Incoming, now: list[float]) -> None:
    for key in "abcd":
        store[key] = {}
        store[key][0] = b"1234567890" if key != "c" else b"123456789"
    trickle(store, now, 120.0)
    store["f"] = {}
    for index in range(10):
        store["f"][index] = b"1"
    assert list(store) == ["a", "b", "d", "f"]
    with pytest.raises(KeyError):
        store["c"][1] = b"1"


def test_no_message_takes_for_ever(store: Incoming, now: list[float]) -> None:
    store["a"] = {}
    store["a"][0] = b"1"
    trickle(store, now, incoming.LIFE_S + incoming.STALE_S)
    store.drop_stale()
    assert list(store) == []


def test_too_many_messages_give_way_to_a_new_one(
    store: Incoming, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "MESSAGES_MAX", 2)
    for key, data in (("a", b"12"), ("b", b"1")):
        store[key] = {}
        store[key][0] = data
    now[0] += incoming.GRACE_S + 1
    store["c"] = {}
    assert list(store) == ["a", "c"]


def test_numbers_are_bounded_too(store: Incoming, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "MESSAGES_MAX", 2)
    monkeypatch.setattr(incoming, "PARTS_MAX", 2)
    store["a"] = {}
    store["b"] = {}
    with pytest.raises(TooMuch, match="too many long messages"):
        store["c"] = {}
    store["b"][0] = store["b"][1] = b""
    with pytest.raises(TooMuch, match="larger than"):
        store["b"][2] = b""
