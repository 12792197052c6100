"""The head's wrapper: parent of Ray's head and of the controller, and the last one to go.

It starts both, restarts the controller when it dies, and ends both when the controller
says that the cluster is down, when it is told to (TERM), or when the foreground `up` that
it is attached to is gone. It holds no state and imports neither Ray nor the loop, so
that little can go wrong in it; if it is killed all the same, both children get TERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from heliostat.cli.children import (
    Child,
    ChildSpec,
    adopt_orphans,
    end_tagged,
    reap_adopted,
    start_child,
)
from heliostat.cli.launch_file import LaunchFile
from heliostat.cli.system import is_process, process_start_ticks
from heliostat.cli.why_file import LEASE_ENDS, TOLD, write_why
from heliostat.config.places import StatePlaces
from heliostat.config.record import ProcessMark, read_record, remove_record, write_record
from heliostat.raylink.address_file import release_address_file

RESTART_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses before a dead controller is started again; the first once it has lived for `STABLE_S`."""

STABLE_S = 60.0
HEAD_GRACE_S = 15.0
CONTROLLER_GRACE_S = 120.0
ATTACHED_CHECK_S = 0.5
TOUCH_CHECK_S = 5.0
TOUCH_SILENCE_S = 180.0
"""How long a foreground `up` on another host may be silent: a shared file system has its pauses."""

HEAD_TAG = "HELIOSTAT_HEAD"
UID_TAG = "HELIOSTAT_CLUSTER_UID"
WORKERS_GRACE_S = 40.0
"""Longer than a busy worker's own drain."""


class Wrapper:
    """Runs one head and its controller in the state folder `folder` until the cluster is down."""

    def __init__(self, folder: Path, launch: LaunchFile) -> None:
        self._folder = folder
        self._launch = launch
        self._stop = asyncio.Event()
        self._controller: Child | None = None
        self._head_died = False

    async def run(self) -> None:
        adopt_orphans()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._go_down, TOLD)
        loop.add_signal_handler(signal.SIGUSR1, self._go_down, LEASE_ENDS)
        head = await start_child(self._head_spec())
        self._record(head)
        guards = [
            asyncio.create_task(self._stop_controller()),
            asyncio.create_task(self._watch_attached()),
            asyncio.create_task(self._watch_touched()),
            asyncio.create_task(self._watch_head(head)),
            asyncio.create_task(reap_adopted(lambda: self._own_pids(head))),
        ]
        try:
            await self._keep_controller()
        finally:
            for task in guards:
                task.cancel()
            if self._controller is not None:
                await self._controller.end(grace_s=CONTROLLER_GRACE_S)
            # A controller that could not finish its work leaves workers behind.
            uid = self._launch.cluster_uid
            await end_tagged(UID_TAG, uid, grace_s=WORKERS_GRACE_S, but=(HEAD_TAG, uid))
            await head.end(grace_s=HEAD_GRACE_S)
            self._clean()

    def _own_pids(self, head: Child) -> set[int]:
        return {head.pid, self._controller.pid if self._controller else 0}

    def _record(self, head: Child) -> None:
        """Write down who we are: `down` and `list` must find this very process, not its number."""
        path = StatePlaces(self._folder).record
        record = read_record(path)
        if record is None:
            return
        me = ProcessMark(os.getpid(), process_start_ticks(os.getpid()) or 0)
        write_record(path, replace(record, wrapper=me, head=ProcessMark(head.pid, head.start_ticks)))

    async def _keep_controller(self) -> None:
        """Start the controller, again and again, until it ends by itself with success."""
        loop = asyncio.get_running_loop()
        deaths = 0
        while True:
            began_s = loop.time()
            self._controller = await start_child(self._controller_spec())
            if self._stop.is_set():
                self._controller.terminate()
            code = await self._controller.wait()
            if code == 0 or self._stop.is_set():
                return
            deaths = 0 if loop.time() - began_s > STABLE_S else deaths + 1
            pause_s = RESTART_S[min(deaths, len(RESTART_S) - 1)]
            _say(f"the controller died ({_ended(code)}); starting it again in {pause_s:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause_s)
            if self._stop.is_set():
                return

    async def _stop_controller(self) -> None:
        await self._stop.wait()
        if self._controller is not None:
            await self._controller.end(grace_s=CONTROLLER_GRACE_S)

    async def _watch_attached(self) -> None:
        """A foreground cluster ends with its terminal, however that ended."""
        pid, ticks = self._launch.attached_pid, self._launch.attached_ticks
        while pid and is_process(pid, ticks):
            await asyncio.sleep(ATTACHED_CHECK_S)
        if pid:
            self._go_down(f"the command that this cluster belongs to (pid {pid}) is gone")

    async def _watch_touched(self) -> None:
        """The same from another host: what counts is that the file changes, by this host's clock.

        Without the file the cluster is nobody's (`cli/attachment.py`).
        """
        path = self._launch.attached_file
        loop = asyncio.get_running_loop()
        seen, since_s = 0, loop.time()
        while path and loop.time() - since_s < TOUCH_SILENCE_S:
            try:
                now = os.stat(path).st_mtime_ns
            except FileNotFoundError:
                _say("this cluster belongs to no command any more")
                return
            except OSError:
                now = seen
            if now != seen:
                seen, since_s = now, loop.time()
            await asyncio.sleep(TOUCH_CHECK_S)
        if path:
            self._go_down(f"the command that this cluster belongs to was silent for {TOUCH_SILENCE_S:g} s")

    def _go_down(self, why: str) -> None:
        """Go down; the first reason is the one that the controller hears."""
        _say(why)
        if not self._stop.is_set():
            write_why(self._launch.runtime_dir, why)
        self._stop.set()

    async def _watch_head(self, head: Child) -> None:
        """Say that a head died. One that never answered won't come: nothing waits for it."""
        code = await head.wait()
        self._head_died = True
        _say(f"Ray's head ended ({_ended(code)}); its log is {head.spec.log}")
        # The controller writes the session down once the head has answered.
        record = read_record(StatePlaces(self._folder).record)
        if record is None or not record.session_name:
            self._go_down("Ray's head never answered")

    def _head_spec(self) -> ChildSpec:
        launch = self._launch
        environment = {**os.environ, **launch.head_environment, HEAD_TAG: launch.cluster_uid}
        log = Path(launch.log_dir, "head.log")
        return ChildSpec("head", launch.head_argv, environment, log, (HEAD_TAG, launch.cluster_uid))

    def _controller_spec(self) -> ChildSpec:
        argv = [sys.executable, "-m", "heliostat.cli.controller", str(self._folder)]
        log = Path(self._launch.log_dir, "controller.log")
        return ChildSpec("controller", argv, _without_tags(os.environ), log)

    def _clean(self) -> None:
        places = StatePlaces(self._folder)
        # The record last: once it is gone another `up` may write files of its own.
        LaunchFile.remove(self._folder)
        if self._launch.attached_file:
            Path(self._launch.attached_file).unlink(missing_ok=True)
        remove_record(places.record, self._launch.cluster_uid)
        release_address_file(self._launch.address, os.environ)
        shutil.rmtree(self._launch.runtime_dir, ignore_errors=True)
        if self._head_died:
            _say(f"the head's own logs stay in {self._launch.head_temp_dir}")
        else:
            shutil.rmtree(self._launch.head_temp_dir, ignore_errors=True)
        _say("the cluster is down")


def _without_tags(environment: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in environment.items() if k not in (HEAD_TAG, "HELIOSTAT_INSTANCE_ID")}


def _ended(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _say(text: str) -> None:
    # A disk that is full costs the line, never the cluster.
    with contextlib.suppress(OSError):
        print(f"wrapper: {text}", flush=True)


def main() -> None:
    folder = Path(sys.argv[1])
    asyncio.run(Wrapper(folder, LaunchFile.read(folder)).run())


if __name__ == "__main__":
    main()
