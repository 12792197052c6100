"""The head's wrapper: parent of Ray's head and of the controller, and the last one to go.

It starts both, restarts the controller when it dies, and ends both when the controller
says that the cluster is down, when it is told to (TERM), or when the foreground `up` that
it is attached to is gone. A head that dies is started again where its state is kept. The wrapper
itself holds no state and imports neither Ray nor the loop, so that little can go wrong in it; if it
is killed all the same, the kernel tells both children.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from heliostat.cli.children import (
    ORPHAN_SIGNAL,
    Child,
    ChildSpec,
    adopt_orphans,
    end_tagged,
    reap_adopted,
    start_child,
)
from heliostat.cli.gcs_storage import DOWN, forget_storage, has_kept_state
from heliostat.cli.launch_file import NAME as LAUNCH_FILE
from heliostat.cli.launch_file import LaunchFile
from heliostat.cli.system import is_process, process_start_ticks
from heliostat.cli.why_file import LEASE_ENDS, TOLD, write_why
from heliostat.config.places import StatePlaces
from heliostat.config.record import ProcessMark, read_record, remove_record, write_record
from heliostat.node import BOOTSTRAP_PATH
from heliostat.ports.errors import StorageError
from heliostat.raylink.address_file import FILE_NAME, release_address_file

RESTART_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses before a dead child is started again; the first once it has lived for `STABLE_S`."""

STABLE_S = 60.0
HEAD_GRACE_S = 15.0
SETUP_GRACE_S = 10.0
HEAD_REST_S = 3.0
"""What a dead head has left may take so long to go by itself."""

CONTROLLER_GRACE_S = 120.0
REMOVE_TRIES = 5
REMOVE_PAUSE_S = 0.2
"""Between two tries to remove a folder: what writes there still is just ending."""

ATTACHED_CHECK_S = 0.5
TOUCH_CHECK_S = 5.0
TOUCH_SILENCE_S = 180.0
"""How long a foreground `up` on another host may be silent: a shared file system has its pauses."""

AUTOSCALER = "heliostat.launcher.rays_autoscaler"
"""The module that is Ray's own autoscaler, where that decides. It is not imported here."""

AUTOSCALER_GRACE_S = 3.0

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
        self._autoscaler: Child | None = None
        self._head_died = False

    async def run(self) -> None:
        adopt_orphans()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._go_down, TOLD)
        loop.add_signal_handler(signal.SIGUSR1, self._go_down, LEASE_ENDS)
        guards = [asyncio.create_task(self._watch_attached()), asyncio.create_task(self._watch_touched())]
        try:
            self._record(None)
            if not await self._set_up():
                self._end_early()
                return
            await self._start_head()
            guards += [
                asyncio.create_task(self._stop_controller()),
                asyncio.create_task(self._keep_head()),
                asyncio.create_task(self._keep_autoscaler()),
                asyncio.create_task(reap_adopted(self._own_pids)),
            ]
            await self._live(guards)
        finally:
            for task in guards:
                task.cancel()

    async def _live(self, guards: Sequence[asyncio.Task[None]]) -> None:
        """Keep the controller until the cluster is down; then end everything, the head last."""
        try:
            await self._keep_controller()
        finally:
            # Nothing of what ends now is started again.
            for task in guards:
                task.cancel()
            if self._autoscaler is not None:
                await self._autoscaler.end(grace_s=AUTOSCALER_GRACE_S)
            if self._controller is not None:
                await self._controller.end(grace_s=CONTROLLER_GRACE_S)
            # A controller that could not finish its work leaves workers behind.
            uid = self._launch.cluster_uid
            await end_tagged(UID_TAG, uid, grace_s=WORKERS_GRACE_S, but=(HEAD_TAG, uid))
            await self._head.end(grace_s=HEAD_GRACE_S)
            self._clean()

    async def _set_up(self) -> bool:
        """Do what comes before the head, within its time; False if it failed or is not wanted any more.

        Its output goes to the head's log. Nothing of it is left if it failed; what it has put into the
        background otherwise ends with the head.
        """
        if not self._launch.head_setup:
            return not self._stop.is_set()
        child = await start_child(self._setup_spec())
        ended, stopped = asyncio.create_task(child.wait()), asyncio.create_task(self._stop.wait())
        limit_s = self._launch.head_setup_s
        done, _ = await asyncio.wait({ended, stopped}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if ended in done and ended.result() == 0:
            return not self._stop.is_set()
        if not done:
            text = f"the setup of the head's host took more than {limit_s:g} s (start_timeout_s of its type)"
            _note(child.spec.log, text)
        elif ended in done:
            _say(f"the setup of the head's host failed; its log is {child.spec.log}")
        await child.end(grace_s=SETUP_GRACE_S)
        return False

    def _end_early(self) -> None:
        """Leave nothing, but where a cluster was to go on that has kept its state and nobody ends it."""
        record = read_record(StatePlaces(self._folder).record)
        if record is not None and has_kept_state(record) and not self._stop.is_set():
            _say(f"the state of {record.cluster_name} and its workers are left as they were")
            return
        self._clean()

    def _own_pids(self) -> set[int]:
        beside = [one.pid for one in (self._controller, self._autoscaler) if one is not None]
        return {self._head.pid, *beside}

    def _record(self, head: Child | None) -> None:
        """Write down who we are: `down` and `list` must find this very process, not its number.

        Without a head while its host is set up, which may take long.
        """
        path = StatePlaces(self._folder).record
        record = read_record(path)
        if record is None:
            return
        me = ProcessMark(os.getpid(), process_start_ticks(os.getpid()) or 0)
        mark = None if head is None else ProcessMark(head.pid, head.start_ticks)
        write_record(path, replace(record, wrapper=me, head=mark))

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
            pause_s = _pause_s(deaths)
            _say(f"the controller died ({_ended(code)}); starting it again in {pause_s:g} s")
            if await self._told_to_stop_within(pause_s):
                return

    async def _told_to_stop_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
        return self._stop.is_set()

    async def _keep_autoscaler(self) -> None:
        """Start Ray's own autoscaler, again and again, where that decides; it finds its workers by id."""
        record = read_record(StatePlaces(self._folder).record)
        if record is None or not record.autoscaler:
            return
        loop = asyncio.get_running_loop()
        deaths = 0
        while not self._stop.is_set():
            began_s = loop.time()
            self._autoscaler = await start_child(self._autoscaler_spec())
            code = await self._autoscaler.wait()
            deaths = 0 if loop.time() - began_s > STABLE_S else deaths + 1
            pause_s = _pause_s(deaths)
            _say(f"Ray's autoscaler died ({_ended(code)}); starting it again in {pause_s:g} s")
            if await self._told_to_stop_within(pause_s):
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

    async def _keep_head(self) -> None:
        """Say that a head died, and start it again if it has kept its state."""
        loop = asyncio.get_running_loop()
        deaths = 0
        while True:
            began_s = loop.time()
            code = await self._head.wait()
            self._head_died = True
            _say(f"Ray's head ended ({_ended(code)}); its log is {self._head.spec.log}")
            record = read_record(StatePlaces(self._folder).record)
            # The controller writes the session down once the head has answered. One that never
            # answered won't come: nothing waits for it.
            if record is None or not record.session_name:
                self._go_down("Ray's head never answered")
                return
            if record.gcs_storage is None:
                return
            deaths = 0 if loop.time() - began_s > STABLE_S else deaths + 1
            # What is left of the old one holds the ports, which must stay the same for the workers.
            await end_tagged(HEAD_TAG, self._launch.cluster_uid, grace_s=HEAD_REST_S)
            if await self._told_to_stop_within(_pause_s(deaths)):
                return
            _say(f"starting the head again, with its state in {record.gcs_storage.address}")
            await self._start_head()

    async def _start_head(self) -> None:
        # Ray would not start where its own note says that it did and a worker of this host still looks there.
        Path(self._launch.head_temp_dir, FILE_NAME).unlink(missing_ok=True)
        self._head = await start_child(self._head_spec())
        self._head_died = False
        self._record(self._head)

    def _head_spec(self) -> ChildSpec:
        launch = self._launch
        environment = {**os.environ, **launch.head_environment, HEAD_TAG: launch.cluster_uid}
        log = Path(launch.log_dir, "head.log")
        return ChildSpec("head", launch.head_argv, environment, log, (HEAD_TAG, launch.cluster_uid))

    def _setup_spec(self) -> ChildSpec:
        """Return how the bootstrap does a head's setup: with the head's own environment and log."""
        argv = [sys.executable, str(BOOTSTRAP_PATH), "--setup", str(self._folder / LAUNCH_FILE)]
        return replace(self._head_spec(), name="setup", argv=argv)

    def _controller_spec(self) -> ChildSpec:
        argv = [sys.executable, "-m", "heliostat.cli.controller", str(self._folder)]
        log = Path(self._launch.log_dir, "controller.log")
        environment = self._without_what_is_the_heads(os.environ)
        return ChildSpec("controller", argv, environment, log, orphan_signal=ORPHAN_SIGNAL)

    def _autoscaler_spec(self) -> ChildSpec:
        launch = self._launch
        argv = [sys.executable, "-m", AUTOSCALER, str(self._folder), launch.head_temp_dir]
        log = Path(launch.log_dir, StatePlaces(self._folder).autoscaler_log.name)
        environment = self._without_what_is_the_heads(os.environ)
        # It keeps nothing; Ray's takes TERM for a failure, and tells drivers so.
        kill = signal.SIGKILL
        return ChildSpec("autoscaler", argv, environment, log, orphan_signal=kill, end_signal=kill)

    def _without_what_is_the_heads(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return what the controller may have, and so the workers that it starts: no tags, no secret."""
        record = read_record(StatePlaces(self._folder).record)
        secret = record.gcs_storage.password_env if record and record.gcs_storage else ""
        dropped = (HEAD_TAG, "HELIOSTAT_INSTANCE_ID", secret)
        return {name: value for name, value in environment.items() if name not in dropped}

    def _clean(self) -> None:
        places = StatePlaces(self._folder)
        # The record last: once it is gone another `up` may write files of its own.
        LaunchFile.remove(self._folder)
        places.ray_file.unlink(missing_ok=True)
        if self._launch.attached_file:
            Path(self._launch.attached_file).unlink(missing_ok=True)
        self._forget(places)
        release_address_file(self._launch.address, os.environ)
        _remove(Path(self._launch.runtime_dir))
        if self._head_died:
            _say(f"the head's own logs stay in {self._launch.head_temp_dir}")
        else:
            _remove(Path(self._launch.head_temp_dir))
        _say("the cluster is down")

    def _forget(self, places: StatePlaces) -> None:
        """Remove the record; it stays, as a cluster's that is down, until its state could be deleted."""
        record = read_record(places.record)
        if record is not None and record.cluster_uid == self._launch.cluster_uid:
            try:
                forget_storage(record)
            except StorageError as error:
                _say(f"{error}: `heliostat down {record.cluster_name}` again deletes them")
                write_record(places.record, replace(record, phase=DOWN))
                return
        remove_record(places.record, self._launch.cluster_uid)


def _remove(folder: Path) -> None:
    """Remove a folder; what a process that is just ending still writes there goes with it."""
    shutil.rmtree(folder, ignore_errors=True)
    for _ in range(REMOVE_TRIES - 1):
        if not folder.exists():
            return
        time.sleep(REMOVE_PAUSE_S)
        shutil.rmtree(folder, ignore_errors=True)


def _pause_s(deaths: int) -> float:
    return RESTART_S[min(deaths, len(RESTART_S) - 1)]


def _ended(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _note(log: Path, text: str) -> None:
    """Say it, and in a child's log as well, which is what people are shown."""
    _say(text)
    with contextlib.suppress(OSError), log.open("a", encoding="utf-8") as file:
        file.write(f"wrapper: {text}\n")


def _say(text: str) -> None:
    # A disk that is full costs the line, never the cluster.
    with contextlib.suppress(OSError):
        print(f"wrapper: {text}", flush=True)


def main() -> None:
    folder = Path(sys.argv[1])
    asyncio.run(Wrapper(folder, LaunchFile.read(folder)).run())


if __name__ == "__main__":
    main()
