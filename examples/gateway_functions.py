"""What examples/gateway.yaml publishes: every name in `__all__`, with the types that callers must keep to."""

from __future__ import annotations

__all__ = ["mean", "primes_below"]


def mean(numbers: list[float]) -> float:
    """Return the mean of some numbers."""
    return sum(numbers) / len(numbers)


def primes_below(limit: int) -> int:
    """Return how many primes there are below a limit."""
    sieve = bytearray([1]) * max(limit, 2)
    sieve[:2] = b"\0\0"
    for number in range(2, int(limit**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(sieve[number * number :: number]))
    return sum(sieve[:limit])
