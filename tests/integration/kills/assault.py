"""A cluster under work whose controller is killed again and again, and the tally of what that has cost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from heliostat.cli import start
from heliostat.cli.system import SystemClock
from heliostat.control.steady_clock import SteadyClock
from heliostat.model.snapshot import RayState
from heliostat.raylink.gcs import GcsCluster, GcsSettings
from heliostat.raylink.token import read_token
from tests.integration.cluster.conftest import Cluster, cluster, finished, until
from tests.integration.kills.failpoints import ADOPTION, DOWN, EVERYWHERE, OF_BACKEND, VARIABLE, Failpoints
from tests.unit.repo import tree

TIMES, RANDOM_TIMES = 5, 40
AT_RANDOM = "at random"
SEED = 20260101
PASS_S = 420.0
"""How long until each place has been reached once: the controller starts some twenty times, and what a
backend began and did not finish is given up after 30 s only; then its type waits, as after any failure."""
GONE_S = 180.0
RANDOM_S = (0.2, 5.0)

ASKED = "asked"

WAVES = """
@ray.remote(num_cpus=1, max_retries=-1)
def work(number, path):
    time.sleep(0.3 + number % 4 * 0.3)
    with open(path, "a") as done:
        done.write(f"{{number}}\\n")
    return number
first = 0
while not os.path.exists({stop!r}):
    numbers = list(range(first, first + {tasks}))
    assert ray.get([work.remote(one, {done!r}) for one in numbers]) == numbers
    first += {tasks}
    time.sleep({pause_s})
print(f"{asked} {{first}}")
"""


@dataclass
class Tally:
    """What came of it. `again` counts tasks that were done more than once: their node went while they ran.

    `in_backend` is the most that the search for what is left has found while there was work.
    """

    backend: str
    kills: Counter[str] = field(default_factory=Counter)
    tasks: int = 0
    lost: int = 0
    again: int = 0
    instances: int = 0
    in_backend: int = 0
    joined_twice: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    minutes: float = 0.0

    def text(self) -> str:
        return json.dumps({**vars(self), "killed": sum(self.kills.values())})

    def check(self) -> None:
        """A controller that dies ends no work, so no task is even done again."""
        assert (self.leaked, self.joined_twice, self.lost, self.again) == ([], [], 0, 0), self.text()
        # Who looks in the wrong place finds nothing, and nothing wrong.
        assert min(self.in_backend, self.instances, self.tasks, self.kills.total()) > 0, self.text()


@dataclass
class Assault:
    """One cluster with a driver at work. `left` says what the backend still has of the cluster."""

    found: Cluster
    points: Failpoints
    tally: Tally
    left: Callable[[str], Sequence[str]]

    @contextmanager
    def work(self, folder: Path, *, tasks: int, pause_s: float) -> Iterator[subprocess.Popen[str]]:
        """Let tasks come and go in waves while the block runs; afterwards all are done and all is gone."""
        stop, done = folder / "stop", folder / "done"
        done.touch()
        driver = self.found.driver(
            WAVES.format(stop=str(stop), done=str(done), tasks=tasks, pause_s=pause_s, asked=ASKED)
        )
        try:
            self._find_workers()
            yield driver
            stop.touch()
            # Ray prints, too: that the cluster grows and shrinks.
            lines = finished(driver, GONE_S).splitlines()
            (asked,) = [int(one.removeprefix(ASKED)) for one in lines if one.startswith(ASKED)]
        finally:
            driver.kill()
        times = Counter(map(int, done.read_text().split()))
        self.tally.tasks += asked
        self.tally.lost += sum(number not in times for number in range(asked))
        self.tally.again += sum(count > 1 for count in times.values())
        self.found.wait_empty(GONE_S)
        self.count_nodes()
        until(lambda: not self.left(self.found.record.cluster_uid) or None, "empty backend", 30)

    def _find_workers(self) -> None:
        """See that the search for what is left finds workers while there are some."""
        found = until(
            lambda: self.left(self.found.record.cluster_uid) or None, "workers in the backend", PASS_S
        )
        self.tally.in_backend = max(self.tally.in_backend, len(found))

    def at_each(self, names: Sequence[str], driver: subprocess.Popen[str]) -> None:
        """Kill the controller once at each of these places."""
        self.points.arm(names)
        until_s = time.monotonic() + PASS_S
        while armed := self.points.armed(names):
            assert driver.poll() is None, finished(driver, 10)
            assert time.monotonic() < until_s, f"not reached: {armed}"
            time.sleep(0.1)
        self.tally.kills.update(names)

    def after_a_lost_journal(self, driver: subprocess.Popen[str]) -> None:
        """Kill the controller when it has just adopted what its journal did not know."""
        self.points.arm([ADOPTION])
        while self.points.armed([ADOPTION]):
            assert driver.poll() is None, finished(driver, 10)
            until(lambda: self.found.running() or None, "a worker", PASS_S)
            self.points.lose_journal()
            self._replace()
        self.tally.kills[ADOPTION] += 1

    def at_random(self, count: int, driver: subprocess.Popen[str], dice: Random) -> None:
        """Kill the controller at random moments, also while it starts."""
        while self.tally.kills[AT_RANDOM] < count:
            assert driver.poll() is None, finished(driver, 10)
            time.sleep(dice.uniform(*RANDOM_S))
            self.tally.kills[AT_RANDOM] += self.kill()

    def kill(self) -> bool:
        """Kill the controller; False if there was none just then."""
        try:
            os.kill(self.points.pid(), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def _replace(self) -> None:
        """Kill the controller, and return when another one answers."""
        old = self.points.pid()
        self.kill()
        until(lambda: self.points.pid() != old or None, "another controller", 60)
        self.found.status()

    def count_nodes(self) -> None:
        """Look for instances that were two nodes: Ray keeps the dead in its table, and no id comes again."""
        nodes = Counter(one.instance_id for one in self._ray().nodes if one.instance_id)
        self.tally.instances += len(nodes)
        self.tally.joined_twice += sorted(one for one, count in nodes.items() if count > 1)

    def _ray(self) -> RayState:
        record = self.found.record
        settings = GcsSettings(
            address=record.address,
            cluster_uid=record.cluster_uid,
            started_by="a test",
            token=lambda: read_token(Path(record.token_path)),
            clock=SteadyClock(SystemClock()),
            serve_metrics=False,
        )

        async def look() -> RayState:
            gcs = GcsCluster(settings)
            try:
                await gcs.connect()
                return await gcs.state()
            finally:
                await gcs.aclose()

        return asyncio.run(look())


@contextmanager
def assault(
    folder: Path, text: str, *, tally: Tally, left: Callable[[str], Sequence[str]]
) -> Iterator[Assault]:
    """Run a cluster whose controller has failpoints; whatever it leaves in the backend is in the tally."""
    began_s = time.monotonic()
    points = Failpoints(folder / "failpoints")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "WRAPPER", "tests.integration.kills.wrapper")
        patch.setenv("PYTHONPATH", os.pathsep.join(_with_tests()))
        patch.setenv(VARIABLE, str(points.folder))
        with cluster(folder, text) as found:
            yield Assault(found, points, tally, left)
    tally.leaked += left(found.record.cluster_uid)
    tally.minutes = round(tally.minutes + (time.monotonic() - began_s) / 60, 1)


def full_assault(
    folder: Path, text: Callable[[str], str], *, tally: Tally, left: Callable[[str], Sequence[str]]
) -> None:
    """Kill it `TIMES` times at each place, and at random; `text` gives a cluster file by its name."""
    places = [*EVERYWHERE, *OF_BACKEND[tally.backend]]
    with (
        assault(folder, text("kills"), tally=tally, left=left) as made,
        made.work(folder, tasks=6, pause_s=5.0) as driver,
    ):
        for _ in range(TIMES):
            made.at_each(places, driver)
            made.after_a_lost_journal(driver)
        made.at_random(RANDOM_TIMES, driver, Random(SEED))
    for number in range(TIMES):
        place = folder / f"down{number}"
        place.mkdir()
        with assault(place, text(f"down{number}"), tally=tally, left=left) as made:
            made.found.command("add", "worker")
            until(lambda made=made: made.found.running() or None, "a worker", 120)
            made.count_nodes()
            made.points.arm([DOWN])
        # It died on its way, and all went down all the same.
        assert not made.points.armed([DOWN])
        tally.kills[DOWN] += 1


def _with_tests() -> list[str]:
    return [str(tree.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
