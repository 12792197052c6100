"""The story of `heliostat train-demo`: a cluster comes up, trains while workers come and go, and ends.

What it says at the end is observed: steps and members by the driver's own output, an empty machine by the
processes themselves.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliostat.api.client import ControllerClient
from heliostat.cli.clusters import client_of
from heliostat.cli.driver import driver_environment
from heliostat.cli.foreground import (
    INTERRUPTED_CODE,
    interrupted_by_stop_signals,
    on_stop_signals,
    say_still_going_down,
)
from heliostat.cli.output import show_json, tell
from heliostat.cli.start import UID_TAG, StartOptions, start_cluster, stop_cluster
from heliostat.cli.system import tagged_processes
from heliostat.cli.train_demo.figures import Change, Record, Step, figures
from heliostat.cli.train_demo.picture import draw
from heliostat.cli.train_demo.process import DriverProcess
from heliostat.cli.train_demo.screen import Screen, of_change, screen_on
from heliostat.cli.train_demo.script import SCENES, Act, Script, dwell_for
from heliostat.config.places import state_places, state_root
from heliostat.config.record import ClusterRecord, read_record
from heliostat.model.report import StatusReport
from heliostat.ports.errors import HeliostatError
from heliostat.ports.journal import Event
from heliostat.providers.local.inventory import read_gpus
from heliostat.providers.local.options import LocalOptions

NAME = "train-demo"
NODE_TYPE = "gpu"
FILE = Path(__file__).parent / "cluster.yaml"
GPUS_NEEDED = 3
MEMBERS_MAX = 8
PART_S = 0.05
POLL_S = 0.05
LOOK_S = 0.5
DRAIN_S = 30.0
SILENT_S = 240.0
"""How long the driver may say nothing: a first worker that does not come is given up by itself before."""
SCENE_S = 150.0
"""With --auto, how long a worker that was asked for may take until its member joins, or leaves."""
TOLD = ("launch", "drain", "release", "failure", "refused")


@dataclass(frozen=True)
class Wishes:
    """What the command line asks for."""

    auto: bool
    steps: int
    picture: Path
    as_json: bool


def run(wishes: Wishes) -> int:
    """Play the story and return the exit code: 0 only if no step was lost and nothing was left running.

    Raises HeliostatError where it can't go on; the cluster is down then. Ctrl-C takes it down as well: 130.
    """
    stream = sys.stderr if wishes.as_json else sys.stdout
    try:
        with interrupted_by_stop_signals(), screen_on(stream) as screen, _no_trace():
            return _Story(wishes, screen).run()
    except KeyboardInterrupt:
        tell("heliostat: stopped; nothing of it is left")
        return INTERRUPTED_CODE


@contextlib.contextmanager
def _no_trace() -> Iterator[None]:
    """Remove the cluster's state folder at the end, unless it was there before or the cluster still is.

    It is where `heliostat add` in another terminal finds the cluster, so it can't be a private one.
    """
    places = state_places(state_root(os.environ, home=Path.home()), NAME)
    before = places.folder.exists()
    try:
        yield
    finally:
        if not before and read_record(places.record) is None:
            shutil.rmtree(places.folder, ignore_errors=True)


class _Story:
    def __init__(self, wishes: Wishes, screen: Screen) -> None:
        self._wishes = wishes
        self._screen = screen
        self._record = Record()
        self._script = Script(dwell_for(wishes.steps)) if wishes.auto else None
        self._acted_s = time.monotonic()
        self._events_seen = 0
        self._names: dict[str, str] = {}

    def run(self) -> int:
        say = self._screen.say
        has_gpus = len(read_gpus(LocalOptions(), os.environ)) >= GPUS_NEEDED
        say("bringing up a Ray cluster on this machine: a head without work, and no worker yet")
        cluster = start_cluster(FILE, options=StartOptions(overrides=overrides(has_gpus=has_gpus)), say=say)
        try:
            self._play(cluster, has_gpus=has_gpus)
        finally:
            with on_stop_signals(say_still_going_down):
                stop_cluster(cluster, say=say)
        return self._conclude(tagged_processes(UID_TAG, cluster.cluster_uid))

    def _play(self, cluster: ClusterRecord, *, has_gpus: bool) -> None:
        client = client_of(cluster)
        self._introduce(has_gpus=has_gpus)
        options = {
            "steps": self._wishes.steps,
            "part_s": PART_S,
            "max_size": MEMBERS_MAX,
            "cuda": has_gpus,
            "waits": self._wishes.auto,
        }
        with DriverProcess(options, driver_environment(cluster)) as driver:
            self._follow(driver, client, since_s=cluster.created_at_s)

    def _introduce(self, *, has_gpus: bool) -> None:
        say = self._screen.say
        if not has_gpus:
            say(f"this machine has fewer than {GPUS_NEEDED} GPUs: four are declared that need not be there")
        say(
            f"a part of a step takes {PART_S * 1_000:.0f} ms, as one of a network that keeps a GPU busy would"
        )
        add, remove = (
            f"heliostat add {NODE_TYPE} --cluster {NAME}",
            f"heliostat remove w1 --deadline {DRAIN_S:.0f}s",
        )
        if self._script is None:
            say(f"to make it grow during training, type in a second terminal: {add}")
            say(f"and to drain a node away: {remove} --cluster {NAME}")
        else:
            say(f"a second terminal would make it grow by: {add} (--auto does it by itself)")

    def _follow(self, driver: DriverProcess, client: ControllerClient, *, since_s: float) -> None:
        """Show what the driver tells and do what is due, until it has ended."""
        heard_s = looked_s = time.monotonic()
        while True:
            over = driver.has_ended()
            for fact in driver.facts():
                heard_s = time.monotonic()
                self._take(fact, client)
            if over:
                return driver.check()
            now_s = time.monotonic()
            if now_s - heard_s > SILENT_S:
                raise HeliostatError(f"the training has said nothing for {SILENT_S:.0f} s")
            self._act(driver, client, now_s)
            if now_s - looked_s >= LOOK_S:
                looked_s = now_s
                self._narrate(client, since_s)
            time.sleep(POLL_S)

    def _take(self, fact: Mapping[str, Any], client: ControllerClient) -> None:
        news = self._record.take(fact)
        if isinstance(news, Step):
            self._screen.step(news)
        elif isinstance(news, Change):
            self._screen.say(of_change(news, self._name_of(client, news.node_id)))
        elif fact["kind"] == "trained":
            self._screen.say(
                "trained; now the same steps with one member throughout, without a pause, to compare"
            )

    def _name_of(self, client: ControllerClient, node_id: str) -> str:
        """Return a worker's name by Ray's id of its node; the id's beginning if it can't be told."""
        if node_id not in self._names:
            with contextlib.suppress(HeliostatError):
                self._names |= {one.node_id: one.name for one in client.status().instances if one.node_id}
        return self._names.get(node_id, f"node {node_id[:8]}")

    def _act(self, driver: DriverProcess, client: ControllerClient, now_s: float) -> None:
        """Do the second terminal's part, if it is time for it."""
        if self._script is None or self._script.is_over:
            return
        act = self._script.next_act(self._record.size, self._record.steps_at_size)
        if act is None:
            if now_s - self._acted_s > SCENE_S and self._record.steps:
                raise HeliostatError(
                    f"no member has joined or left within {SCENE_S:.0f} s of the last command; "
                    f"there are {self._record.size}"
                )
            return
        self._acted_s = now_s
        if act is Act.ENOUGH:
            driver.enough()
        elif act is Act.ADD:
            self._screen.say(f"$ heliostat add {NODE_TYPE} --cluster {NAME}")
            client.add(NODE_TYPE)
        else:
            last = newest(client.status())
            self._screen.say(f"$ heliostat remove {last} --deadline {DRAIN_S:.0f}s --cluster {NAME}")
            client.remove(last, deadline_s=DRAIN_S)

    def _narrate(self, client: ControllerClient, since_s: float) -> None:
        """Tell what the controller did since the last look; one that is being restarted is asked again."""
        try:
            events = client.events(after=self._events_seen)
        except HeliostatError:
            return
        for event in events:
            self._events_seen = max(self._events_seen, event.seq)
            # The journal has former runs of the demo, too.
            if event.at_s >= since_s and _worth_telling(event):
                self._screen.say(f"heliostat: {event.text}")

    def _conclude(self, left: list[int]) -> int:
        found = figures(self._record)
        draw(self._record, self._wishes.picture)
        if left:
            self._screen.say(f"processes left behind: {left}")
        self._screen.print(summary(found, self._wishes.picture))
        if self._wishes.as_json:
            show_json(found)
        return 0 if is_good(found, auto=self._wishes.auto) and not left else 1


def summary(found: Mapping[str, Any], picture: Path) -> str:
    """Return the last line: what `--json` has, in words."""
    path = " -> ".join(map(str, found["sizes"]))
    speeds = ", ".join(
        f"{speed:.0f} samples/s with {size}"
        for size, speed in found["throughput"].items()
        if speed is not None
    )
    return (
        f"{NAME}: {found['steps']} steps, {found['lost_steps']} lost, members {path}; {speeds}; "
        f"{found['final_accuracy']:.1%} of unseen digits right, {found['fixed_accuracy']:.1%} with one member"
        f" throughout; picture: {picture}"
    )


def is_good(found: Mapping[str, Any], *, auto: bool) -> bool:
    """Say whether all went as it should: no step lost, and with --auto the sizes that it plays."""
    as_played = found["sizes"] == [size for size, _ in SCENES]
    return found["lost_steps"] == 0 and (as_played or not auto)


def overrides(*, has_gpus: bool) -> dict[str, Any]:
    """Return what is laid over the cluster file: this machine's own GPUs and CPUs, where it has enough."""
    if not has_gpus:
        return {}
    backends = {"local": {"gpus": "auto", "cpus": "auto"}}
    return {
        "provider": {"type": "external", "module": "heliostat.launcher.NodeProvider", "backends": backends}
    }


def newest(status: StatusReport) -> str:
    """Return the name of the worker that runs for the shortest time."""
    running = [one for one in status.instances if one.state == "running"]
    return min(running, key=lambda one: one.since_s).name


def _worth_telling(event: Event) -> bool:
    return event.kind in TOLD or (event.kind == "state" and event.data.get("state") in ("running", "gone"))
