"""Chance, all of it from one seed: the one place of the simulator that imports `random`."""

from __future__ import annotations

import random

Stream = random.Random
"""A source of random draws with a state of its own."""


class Dice:
    """Random streams by name, from one seed, so that one more draw in one place changes no other place."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._streams: dict[str, Stream] = {}

    def stream(self, name: str) -> Stream:
        """Return the stream of that name: each time the same one, wherever it has come to."""
        if name not in self._streams:
            # A text is hashed with SHA-512, the same on every machine and in every process.
            self._streams[name] = random.Random(f"{self.seed}/{name}")
        return self._streams[name]
