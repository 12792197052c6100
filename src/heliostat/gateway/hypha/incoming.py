"""Long messages while their parts arrive: bounded, because anybody may send some.

Hypha's client keeps the parts of a long message until the last one is there, for everyone who can reach it,
before any rule has been asked, however large, and for ever if the sender goes away. This takes the place
of the dict that it keeps them in. Where room is short, who sends slowest makes it: nobody can hold the
gateway shut by sending a little now and then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MESSAGE_MAX_BYTES = 128 * 2**20
"""One message: the usual limit of a payload, 64 MiB, as base64, and some room."""

AT_A_TIME = 4
"""Messages of the largest size for which there is room."""

MESSAGES_MAX = 1000
PARTS_MAX = 10_000

STALE_S = 60.0
"""So long after its last part a message is dropped when room is needed."""


LIFE_S = 600.0
"""So long after its first part too, whatever still comes: 128 MiB at some 220 KiB/s."""

GRACE_S = 10.0
"""A message that is younger makes no room for others: how fast it comes can't be told yet."""


class TooMuch(ValueError):
    """A message is too large, or there is no room for it now; the text is for its sender."""


class Incoming(dict[str, Any]):
    """Messages by key, each a dict of its parts by number. `now_s` is a clock that never jumps."""

    def __init__(self, now_s: Callable[[], float], *, message_max_bytes: int = MESSAGE_MAX_BYTES) -> None:
        super().__init__()
        self.now_s = now_s
        self.message_max_bytes = message_max_bytes
        self.all_max_bytes = AT_A_TIME * message_max_bytes

    def __setitem__(self, key: str, value: Any) -> None:
        if len(self) >= MESSAGES_MAX:
            self.drop_stale()
        if len(self) >= MESSAGES_MAX and not self._drop_slowest():
            raise TooMuch("the gateway receives too many long messages just now; try again in a while")
        super().__setitem__(key, Parts(self, key))

    def make_room(self, key: str, size: int) -> None:
        """Return if `size` more bytes of a message may come; else forget the message and raise `TooMuch`."""
        if self[key].size + size > self.message_max_bytes or len(self[key]) >= PARTS_MAX:
            del self[key]
            raise TooMuch(f"the message is larger than {self.message_max_bytes} bytes")
        if self.size + size > self.all_max_bytes:
            self.drop_stale()
        while self.size + size > self.all_max_bytes:
            if key not in self or not self._drop_slowest():
                self.pop(key, None)
                raise TooMuch("the gateway receives too much just now; try again in a while")

    def drop_stale(self) -> None:
        now_s = self.now_s()
        for key, parts in list(self.items()):
            if now_s - parts.grown_s > STALE_S or now_s - parts.begun_s > LIFE_S:
                del self[key]

    def _drop_slowest(self) -> bool:
        """Say whether there was one that is old enough."""
        now_s = self.now_s()
        old = {key: parts for key, parts in self.items() if now_s - parts.begun_s > GRACE_S}
        if old:
            del self[min(old, key=lambda key: old[key].size / (now_s - old[key].begun_s))]
        return bool(old)

    @property
    def size(self) -> int:
        return sum(parts.size for parts in self.values())


class Parts(dict[int, bytes]):
    """The parts of one message that have arrived."""

    def __init__(self, all_of_them: Incoming, key: str) -> None:
        super().__init__()
        self._all, self._key = all_of_them, key
        self.size = 0
        self.begun_s = self.grown_s = all_of_them.now_s()

    def __setitem__(self, index: int, data: bytes) -> None:
        more = len(data) - len(self.get(index, b""))
        self._all.make_room(self._key, more)
        self.size += more
        self.grown_s = self._all.now_s()
        super().__setitem__(index, data)
