"""What to put together on single devices: 0.6 with 0.4, 0.75 with 0.25.

A greedy fill by size leaves a quarter of a GPU over here and there; a small exact program for one
device (unbounded knapsack, solved by its capacity) does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd

from heliostat.model.resources import SCALE

CELLS = 400
"""A device is cut into so many parts at most; finer shares are left to the greedy fill."""


def best_mix(shares: Mapping[int, int], values: Sequence[float]) -> dict[int, int]:
    """Return how many of each item to put on one device, for the greatest sum of `values`.

    `shares` maps an item to what it takes of the device, in 1/10000 and below one.
    """
    unit = gcd(SCALE, *shares.values())
    cells = SCALE // unit
    if not shares or cells > CELLS:
        return {}
    sizes = sorted((item, share // unit) for item, share in shares.items() if values[item] > 0)
    best, last = [0.0] * (cells + 1), [-1] * (cells + 1)
    for room in range(1, cells + 1):
        best[room], last[room] = best[room - 1], -1
        for item, size in sizes:
            if size <= room and best[room - size] + values[item] > best[room] + 1e-12:
                best[room], last[room] = best[room - size] + values[item], item
    return _read(last, dict(sizes), cells)


def _read(last: Sequence[int], sizes: Mapping[int, int], room: int) -> dict[int, int]:
    mix: dict[int, int] = {}
    while room > 0:
        item = last[room]
        if item < 0:
            room -= 1
        else:
            mix[item] = mix.get(item, 0) + 1
            room -= sizes[item]
    return mix
