"""A driver that does what it is told: each line of its input is Python, each line of its output an answer.

Run as a process of its own, because Ray keeps a cluster's token for as long as a process lives.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import sys
import threading
import time
from typing import Any
from urllib.request import urlopen

import ray

from heliostat import train


class Trainer:
    """A member: `epoch` is its state, and `journal` the file where it writes what it has done."""

    def __init__(self, journal: str) -> None:
        self.journal = journal
        self.epoch = 0

    def pid(self) -> int:
        return os.getpid()

    def work(self, item: tuple[int, float]) -> int:
        number, seconds = item
        time.sleep(seconds)
        with open(self.journal, "a") as file:
            file.write(f"{number} {os.getpid()}\n")
        return number * 10

    def train(self, epochs: int) -> int:
        self.epoch += epochs
        return self.epoch

    def leaving(self, deadline_s: float) -> dict[str, float]:
        return {"epoch": self.epoch, "deadline_s": deadline_s}

    def take_over(self, state: dict[str, float]) -> None:
        self.epoch = int(state["epoch"])


def living() -> dict[str, int]:
    """Return how many actors and placement groups there are that are not over."""
    from ray._private.state import state

    actors = [one for one in state.actor_table(None).values() if one["State"] != "DEAD"]
    groups = [one for one in state.placement_group_table().values() if one["state"] != "REMOVED"]
    return {"actors": len(actors), "groups": len(groups)}


def sync_until(group: Any, size: int, *, timeout_s: float = 30.0) -> list[Any]:
    """Sync until the group has that size; return who left on the way, as text."""
    left, until_s = [], time.monotonic() + timeout_s
    while True:
        left += [(one.member.id, str(one.reason), one.detail, one.state) for one in group.sync().left]
        if len(group) == size:
            return left
        assert time.monotonic() < until_s, f"{len(group)} of {size}, {group.waiting} wait"
        time.sleep(0.05)


def median_sync_ms(group: Any, count: int = 200) -> float:
    times = []
    for _ in range(count):
        begun_s = time.perf_counter()
        group.sync()
        times.append(time.perf_counter() - begun_s)
    return sorted(times)[count // 2] * 1000


def kill_later(pid: int, seconds: float) -> None:
    threading.Timer(seconds, os.kill, (pid, 9)).start()


def exported(prefix: str) -> dict[str, float]:
    """Return the metrics of that prefix that this host's nodes export, by name."""
    found: dict[str, float] = {}
    for port in {one["MetricsExportPort"] for one in ray.nodes() if one["Alive"]}:
        with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
            for line in reply.read().decode().splitlines():
                if line.startswith(prefix):
                    found[line.partition("{")[0]] = float(line.rpartition(" ")[2])
    return found


def kill_in_steps(group: Any, kills: int) -> dict[str, int]:
    """Kill a member in each of so many maps; return how many maps lost something, and who left."""
    lost = left = 0
    for number in range(kills):
        size = len(group)
        kill_later(group.call("pid")[number % size], 0.05)
        items = [(100 * number + one, 0.05) for one in range(3 * size)]
        lost += group.map("work", items) != [10 * one for one, _ in items]
        left += len(sync_until(group, size - 1)) + len(sync_until(group, size))
    return {"lost": lost, "left": left}


FUNCTIONS = (
    *(ray, Trainer, living, exported),
    *(sync_until, median_sync_ms, kill_later, kill_in_steps),
)
NAMES: dict[str, Any] = {name: getattr(train, name) for name in train.__all__} | {
    one.__name__: one for one in FUNCTIONS
}


def answer(source: str) -> Any:
    """Run the lines, and return the value of the last one if it is an expression."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "<told>", "exec"), NAMES)  # noqa: S102 -- that is what it is for
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), "<told>", "eval"), NAMES)  # noqa: S307 -- the same


def main() -> None:
    # Ray prints to the standard output, too; answers go by a descriptor of their own.
    answers = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    ray.init(address="auto", log_to_driver=False)
    answers.write('{"value": "ready"}\n')
    for line in sys.stdin:
        try:
            reply = {"value": answer(json.loads(line))}
        except BaseException as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(reply, default=str) + "\n")


if __name__ == "__main__":
    main()
