"""Room on the single devices of one node.

Ray gives out GPUs so (its instance resources): a share lies within one GPU, a whole one takes a
whole one. Two GPUs with 0.4 free each have no room for 0.6. A node's devices are a tuple of what is
free on each, in 1/10000, the fullest device first.
"""

from __future__ import annotations

from collections.abc import Iterable

from heliostat.model.resources import SCALE

Devices = tuple[int, ...]


def fresh(amount: int) -> Devices:
    """Return the devices of an unused node that has `amount` in all; a share at the end is a device too."""
    rest = amount % SCALE
    return ((rest,) if rest else ()) + (SCALE,) * (amount // SCALE)


def copies_on(devices: Devices, amount: int) -> int:
    """Return how many bundles that each ask for `amount` fit."""
    whole, share = divmod(amount, SCALE)
    if not share:
        return devices.count(SCALE) // whole
    if not whole:
        return sum(free // share for free in devices)
    count = 0
    while True:
        after = _take_one(devices, whole, share)
        if after is None:
            return count
        count, devices = count + 1, after


def take(devices: Devices, amount: int, copies: int) -> Devices:
    """Return what is left after `copies` bundles, which must fit.

    Each share goes to the fullest device that holds it.
    """
    whole, share = divmod(amount, SCALE)
    for _ in range(copies):
        after = _take_one(devices, whole, share)
        assert after is not None, "the caller has counted the room"
        devices = after
    return devices


def take_parts(devices: Devices, parts: Iterable[tuple[int, int]], whole: int, copies: int) -> Devices:
    """Return what is left after `copies` bundles, each of `parts` (amount, count), the largest first.

    `whole` is a bundle's amount in one, which must fit: it is taken where the parts would not lie so well.
    """
    left = devices
    for amount, count in sorted(parts, reverse=True):
        if copies_on(left, amount) < count * copies:
            return take(devices, whole, copies)
        left = take(left, amount, count * copies)
    return left


def _take_one(devices: Devices, whole: int, share: int) -> Devices | None:
    free = list(devices)
    if whole:
        if devices.count(SCALE) < whole:
            return None
        # Whole devices stand last; what is taken of them is of no more use.
        del free[len(free) - whole :]
    if share:
        spot = next((index for index, left in enumerate(free) if left >= share), None)
        if spot is None:
            return None
        free[spot] -= share
        free.sort()
    return tuple(one for one in free if one)
