"""The drivers of test_digits.py: they train, and change the world between steps that are set beforehand.

    python -m tests.integration.train.digits_driver resize|losses

What came of it is the last line that they print, in JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import ray

from examples.elastic_digits import Config, Run, Trainer
from heliostat.train import ElasticGroup, Member, Reason

WAIT_S = 120.0
POLL_S = 0.05
NOTICE = "60s"
RESIZE = Config(steps=400, seconds=0.05)
LOSSES = Config(steps=50, seconds=0.6)


class Mortal(Trainer):
    """A member whose process can be found."""

    def pid(self) -> int:
        return os.getpid()


@dataclass
class Course:
    """What happens after which step."""

    group: ElasticGroup = field(init=False)
    left: list[tuple[str, str]] = field(default_factory=list)

    def note(self, member: Member, reason: Reason) -> None:
        self.left.append((member.id, str(reason)))

    def wait(self, size: int) -> None:
        """Hold the training until there are so many members."""
        end_s = time.monotonic() + WAIT_S
        while len(self.group) != size:
            assert time.monotonic() < end_s, f"{len(self.group)} members and not {size} after {WAIT_S:g} s"
            time.sleep(POLL_S)
            self.group.sync()

    def wait_for(self, reason: Reason) -> None:
        """Hold the training until a member has left for this reason."""
        end_s = time.monotonic() + WAIT_S
        while str(reason) not in [one for _, one in self.left]:
            assert time.monotonic() < end_s, f"nobody left as {reason} within {WAIT_S:g} s: {self.left}"
            time.sleep(POLL_S)
            self.group.sync()

    def remove(self, member: Member) -> None:
        """Announce by our own command that a member's node goes."""
        words = ["remove", member.node_id[:12], "--deadline", NOTICE]
        subprocess.run([sys.executable, "-m", "heliostat.cli.main", *words], check=True, timeout=WAIT_S)


@dataclass
class Resize(Course):
    """From 1 member to 2 and 3, on nodes that come for them, and back to 2, as one node is drained."""

    def at(self, run: Run) -> None:
        match run.done:
            case 60:
                self.group.target = 2
            case 100:
                self.wait(2)
            case 160:
                self.group.target = 3
            case 200:
                self.wait(3)
            case 300:
                self.remove(self.group.members[1])
            case 340:
                self.wait(2)
        if self.left:
            # Else another node would come for the one that is drained.
            self.group.target = 2


@dataclass
class Losses(Course):
    """One of 3 is killed in a step; then there is only one, and its node is drained."""

    killed_s: float | None = None
    next_step_s: float | None = None

    def at(self, run: Run) -> None:
        if self.killed_s is not None and self.next_step_s is None:
            self.next_step_s = time.monotonic() - self.killed_s
        match run.done:
            case 5:
                self.wait(3)
            case 20:
                # A third of 0.6 s is a member's share of a step: it dies, and the others wait for it.
                threading.Timer(0.1, self.kill, [self.pid(1)]).start()
            case 40:
                self.group.target = 1
                self.wait(1)
                self.remove(self.group.members[0])
            case 45:
                # Its successor needs a moment to start, and must take over before the last step.
                self.wait_for(Reason.DRAINED)

    def pid(self, rank: int) -> int:
        return int(ray.get(self.group.members[rank].actor.pid.remote(), timeout=WAIT_S))

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.killed_s = time.monotonic()


def train(course: Any, config: Config, *, target: int) -> dict[str, Any]:
    with ElasticGroup(
        Mortal,
        bundle={"CPU": 1},
        min_size=1,
        max_size=3,
        args=(config,),
        target=target,
        on_leave=course.note,
    ) as group:
        course.group = group
        run = Run(group, config, on_step=course.at)
        accuracy = run.train()
        last = group.members[0].id
    return {
        "accuracy": accuracy,
        "losses": [run.losses[step] for step in range(run.done)],
        "sizes": [size for size, _ in groupby(size for _, size in sorted(run.sizes.items()))],
        "in_vain": run.tried - run.done,
        "left": course.left,
        "last": last,
        "next_step_s": getattr(course, "next_step_s", None),
    }


def main() -> None:
    ray.init(address="auto", logging_level="ERROR", log_to_driver=False)
    resize = sys.argv[1] == "resize"
    outcome = train(Resize(), RESIZE, target=1) if resize else train(Losses(), LOSSES, target=3)
    print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main()
