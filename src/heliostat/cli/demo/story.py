"""The demo's story: brings a cluster up, has it work, watches it go to zero, and checks that nothing is left.

Everything it claims in its last line is observed: workers by the controller's reports,
results by the driver's own output, an empty machine by the processes themselves.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from heliostat.api.client import ControllerClient
from heliostat.cli.driver import driver_environment
from heliostat.cli.foreground import interrupted_by_stop_signals, on_stop_signals, say_still_going_down
from heliostat.cli.json_lines import JsonLines
from heliostat.cli.start import StartOptions, start_cluster, stop_cluster
from heliostat.cli.system import SystemClock, tagged_processes
from heliostat.config.places import RUNTIME_VARIABLE, STATE_VARIABLE
from heliostat.model.report import StatusReport
from heliostat.ports.errors import HeliostatError
from heliostat.ports.journal import Event

POLL_S = 0.25
WORK_TIMEOUT_S = 240.0
EMPTY_TIMEOUT_S = 90.0
HERE = Path(__file__).parent

Say = Callable[[str], None]


@dataclass
class Tally:
    """What was seen: times are Unix seconds."""

    submitted: int = 0
    done: int = 0
    first_demand_s: float | None = None
    first_worker_s: float | None = None
    last_task_s: float | None = None
    empty_s: float | None = None
    most_workers: int = 0
    groups: int = 0
    last_seq: int = 0
    joined: set[str] = field(default_factory=set)

    @property
    def lost(self) -> int:
        return self.submitted - self.done


def run(say: Say) -> int:
    """Run the demo and return the exit code: 0 only if nothing was lost, leaked or left running."""
    if find_spec("sklearn") is None:
        raise HeliostatError("the demo's work needs scikit-learn: pip install scikit-learn")
    with tempfile.TemporaryDirectory(prefix="hel-demo-", dir="/tmp") as folder:
        os.environ[STATE_VARIABLE] = str(Path(folder, "state"))
        os.environ[RUNTIME_VARIABLE] = str(Path(folder, "run"))
        with interrupted_by_stop_signals():
            return _Demo(say).run()


class _Demo:
    def __init__(self, say: Say) -> None:
        self._say_line = say
        self._began_s = time.monotonic()
        self._tally = Tally()

    def say(self, text: str) -> None:
        self._say_line(f"{time.monotonic() - self._began_s:5.1f} s  {text}")

    def run(self) -> int:
        self.say("bringing up a Ray cluster on this machine: a head without CPUs, no worker")
        record = start_cluster(HERE / "cluster.yaml", options=StartOptions(), say=self.say)
        uid = record.cluster_uid
        try:
            client = ControllerClient(Path(record.runtime_dir, "control.sock"), cluster="demo")
            self.say(f"the cluster is up at {record.address}; workers: {_workers(client.status())}")
            exit_code = self._work(client, driver_environment(record))
            self._watch_until_empty(client)
        finally:
            with on_stop_signals(say_still_going_down):
                stop_cluster(record, say=self.say)
        left = tagged_processes("HELIOSTAT_CLUSTER_UID", uid)
        return self._conclude(exit_code, left)

    def _work(self, client: ControllerClient, environment: Mapping[str, str]) -> int:
        """Run the driver and narrate until it ends; return its exit code."""
        argv = [sys.executable, str(HERE / "workload.py")]
        with tempfile.TemporaryFile() as errors:
            driver = subprocess.Popen(argv, env=dict(environment), stdout=subprocess.PIPE, stderr=errors)
            try:
                code = self._follow(driver, client)
            finally:
                if driver.poll() is None:
                    driver.terminate()
                    driver.wait(timeout=20)
            if code != 0:
                errors.seek(0)
                self.say(
                    f"the driver failed (exit code {code}):\n{errors.read()[-2000:].decode(errors='replace')}"
                )
            return code

    def _follow(self, driver: subprocess.Popen[bytes], client: ControllerClient) -> int:
        assert driver.stdout is not None
        lines = JsonLines(driver.stdout.fileno())
        deadline_s = time.monotonic() + WORK_TIMEOUT_S
        while time.monotonic() < deadline_s:
            over = driver.poll() is not None
            for line in lines.read():
                self._driver_says(json.loads(line))
            self._look(client)
            if over:
                return int(driver.returncode)
            time.sleep(POLL_S)
        raise HeliostatError(f"the demo's work did not end within {WORK_TIMEOUT_S:.0f} s")

    def _driver_says(self, fact: Mapping[str, Any]) -> None:
        tally = self._tally
        if fact["kind"] == "submitted":
            tally.submitted += fact["tasks"]
            tally.first_demand_s = tally.first_demand_s or fact["at_s"]
            self.say(f"driver: {fact['tasks']} tasks submitted ({fact['what']}), 1 CPU each")
        elif fact["kind"] == "result":
            self.say(f"driver: {_setting(fact['setting'])} reads {fact['right']:.1%} right")
        elif fact["kind"] == "group":
            tally.groups += 1
            self.say(f"driver: placement group of {fact['bundles']} bundles, {fact['strategy']}")
        elif fact["kind"] == "done":
            tally.done = fact["tasks"]
            tally.last_task_s = fact["at_s"]
            self.say(
                f"driver: best is {_setting(fact['setting'])}: {fact['right']:.1%} of unseen digits right"
            )

    def _look(self, client: ControllerClient) -> StatusReport | None:
        """Read status and new events once; narrate what is new."""
        try:
            status = client.status()
            events = client.events(after=self._tally.last_seq)
        except HeliostatError:
            return None
        for event in events:
            self._tally.last_seq = max(self._tally.last_seq, event.seq)
            self._narrate(event)
        self._tally.most_workers = max(self._tally.most_workers, _workers(status))
        return status

    def _narrate(self, event: Event) -> None:
        state = event.data.get("state")
        if event.kind == "state" and state == "running" and event.instance_id not in self._tally.joined:
            self._tally.joined.add(event.instance_id)
            self._tally.first_worker_s = self._tally.first_worker_s or event.at_s
        if event.kind in ("launch", "drain", "release", "failure", "refused"):
            self.say(f"heliostat: {event.kind}: {event.text}")
        elif event.kind == "state" and state in ("running", "failed", "gone"):
            self.say(f"heliostat: {event.text}")

    def _watch_until_empty(self, client: ControllerClient) -> None:
        self.say("no work is left: workers are drained once idle for 4 s, and only if Ray agrees")
        deadline_s = time.monotonic() + EMPTY_TIMEOUT_S
        while time.monotonic() < deadline_s:
            status = self._look(client)
            if status is not None and not status.instances:
                self._tally.empty_s = SystemClock().now_s()
                self.say("zero workers")
                return
            time.sleep(POLL_S)
        self.say(f"workers are still there after {EMPTY_TIMEOUT_S:.0f} s")

    def _conclude(self, exit_code: int, left: list[int]) -> int:
        tally = self._tally
        if left:
            self.say(f"processes left behind: {left}")
        if tally.empty_s is None or tally.first_worker_s is None or tally.last_task_s is None:
            self._say_line("demo: failed, see above")
            return 1
        first_s = tally.first_worker_s - (tally.first_demand_s or 0.0)
        down_s = tally.empty_s - tally.last_task_s
        self._say_line(
            f"demo: workers 0 -> {tally.most_workers} -> 0, {tally.done} tasks done, {tally.lost} lost,"
            f" first worker {first_s:.1f} s after demand, all down {down_s:.1f} s after the last task"
        )
        good = exit_code == 0 and not left and tally.lost == 0 and tally.most_workers >= 2 and tally.groups
        return 0 if good else 1


def _workers(status: StatusReport) -> int:
    return sum(one.state in ("running", "draining") for one in status.instances)


def _setting(setting: Mapping[str, float]) -> str:
    return f"hidden {setting['hidden']:g}, alpha {setting['alpha']:g}, rate {setting['rate']:g}"
