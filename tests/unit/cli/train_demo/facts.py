"""What a driver tells of a small training: 1, 2, 3 and 2 members, two steps at each size."""

from __future__ import annotations

from typing import Any

from heliostat.cli.train_demo.figures import Record

NODES = ("a" * 56, "b" * 56, "c" * 56)


def step(number: int, size: int, *, at_s: float, changed: bool = False) -> dict[str, Any]:
    return {
        "kind": "step",
        "at_s": at_s,
        "number": number,
        "size": size,
        "samples_per_s": 100.0 * size - (50.0 if changed else 0.0),
        "loss": 2.0 / number,
        "sync_s": 0.5 if changed else 0.001 * number,
        "changed": changed,
    }


def join(index: int, *, at_s: float) -> dict[str, Any]:
    return {"kind": "join", "at_s": at_s, "member": f"m{index}", "node_id": NODES[index]}


def first_step(index: int, since_joined_s: float, *, at_s: float) -> dict[str, Any]:
    return {"kind": "first step", "at_s": at_s, "node_id": NODES[index], "since_joined_s": since_joined_s}


TOLD: list[dict[str, Any]] = [
    join(0, at_s=101.0),
    step(1, 1, at_s=102.0, changed=True),
    first_step(0, 9.0, at_s=102.0),
    step(2, 1, at_s=103.0),
    join(1, at_s=103.5),
    step(3, 2, at_s=104.0, changed=True),
    first_step(1, 3.0, at_s=104.0),
    step(4, 2, at_s=104.5),
    join(2, at_s=104.7),
    step(5, 3, at_s=105.0, changed=True),
    first_step(2, 4.0, at_s=105.0),
    step(6, 3, at_s=105.3),
    {
        "kind": "leave",
        "at_s": 105.4,
        "member": "m2",
        "node_id": NODES[2],
        "reason": "drained",
        "detail": "its node drains, 29 s left",
    },
    step(7, 2, at_s=106.0, changed=True),
    step(8, 2, at_s=106.5),
    {"kind": "trained", "at_s": 107.0, "lost": 0, "accuracy": 0.97114},
    {"kind": "fixed", "at_s": 110.0, "accuracy": 0.96889},
]


def record(told: list[dict[str, Any]] = TOLD) -> Record:
    found = Record()
    for fact in told:
        found.take(fact)
    return found
