"""What becomes of an instance: found again, noticed when it ends, ended when asked. Blocking.

Everything is derived from the disk and /proc each time, so a controller that dies at any
line of this file leaves nothing that the next one does not take up.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from heliostat.model.instance import BackendInstance, BackendState
from heliostat.providers.local import words
from heliostat.providers.local.processes import Identity, boot_id, families, is_alive, reap, send
from heliostat.providers.local.records import STATUS, End, Record, Records, Stop
from heliostat.providers.local.room import slot_text

SPAWN_BOUND_S = 5.0
"""A claimed instance without a process is given up after this time: its controller died."""
LEFTOVERS_GRACE_S = 5.0
"""How long the children of an ended bootstrap may take to go before they are killed."""
AFTER_START = frozenset({"running", "draining", "stopping", "ended"})
"""Words of the bootstrap's status that come after a successful start."""


class SystemTime:
    """The clocks of this machine. The monotonic one is shared by all processes of one boot.

    `now_s` stands for the wall clock where the controller has one of its own.
    """

    def __init__(self, now_s: Callable[[], float] | None = None) -> None:
        self.now_s = now_s or time.time

    def monotonic_s(self) -> float:
        return time.monotonic()


class Families:
    """The living processes of every instance, looked for at most once and only if asked."""

    def __init__(self, find: Callable[[], dict[str, list[Identity]]]) -> None:
        self._find = find

    @cached_property
    def _all(self) -> dict[str, list[Identity]]:
        return self._find()

    def of(self, instance_id: str) -> list[Identity]:
        return self._all.get(instance_id, [])


class Lifecycle:
    """The instances of one cluster on this machine; calls must not overlap."""

    def __init__(self, records: Records, *, cluster_uid: str, log_dir: Path, time: SystemTime) -> None:
        self.records = records
        self.time = time
        self._cluster_uid = cluster_uid
        self._log_dir = log_dir
        self._boot_id = boot_id()

    def log_of(self, instance_id: str) -> Path:
        return self._log_dir / f"{instance_id}.log"

    def tend(self) -> list[Record]:
        """Bring every record up to what is true now, do what is due, and return those that stay."""
        every = self.records.all(self._cluster_uid)
        living = self._families(every)
        return [kept for record in every if (kept := self._tended(record, living)) is not None]

    def stop(self, instance_ids: Iterable[str]) -> None:
        """Ask instances to end: noted on disk, then TERM. Asked already, or unknown: nothing."""
        wanted = set(instance_ids)
        every = self.records.all(self._cluster_uid)
        living = self._families(every)
        for record in every:
            if record.instance_id in wanted and record.stop is None:
                self._stop(self._bound(record, living), living)

    def row(self, record: Record, *, host: str) -> BackendInstance:
        """Return the instance as a line of the provider's listing."""
        state, detail = self._state(record)
        return BackendInstance(
            record.instance_id,
            record.native_id,
            record.node_type,
            state,
            shape_id=record.shape_id,
            host=host,
            detail=detail,
            slot=slot_text(record.gpus) or None,
            started_at_s=record.claimed_at_s,
        )

    # Inside.

    def _families(self, records: Iterable[Record]) -> Families:
        leaders = {
            record.instance_id: record.process
            for record in records
            if record.process is not None and record.boot_id == self._boot_id
        }
        return Families(lambda: families(self._cluster_uid, leaders))

    def _tended(self, record: Record, living: Families) -> Record | None:
        record = self._ended(self._bound(record, living), living)
        if record.stop is None:
            return record
        if not record.holds_its_slot:
            self.records.remove(record.instance_id)
            return None
        if self.time.monotonic_s() >= record.stop.last_resort_s:
            for process in self._everyone(record, living):
                send(process, signal.SIGKILL)
        return record

    def _bound(self, record: Record, living: Families) -> Record:
        """Find the process of an instance whose controller died between start and note."""
        if record.process is not None or record.end is not None:
            return record
        family = living.of(record.instance_id)
        if family:
            return self._saved(replace(record, process=family[0]))
        waited_s = self.time.monotonic_s() - record.claimed_s
        if 0 <= waited_s < SPAWN_BOUND_S and record.boot_id == self._boot_id:
            return record
        detail = "it was never started: the controller ended while launching it"
        return self._saved(replace(record, end=End(None, self.time.now_s(), detail, failed=True, alone=True)))

    def _ended(self, record: Record, living: Families) -> Record:
        """Notice that the bootstrap is over, and later that nothing of the instance is left."""
        if record.end is not None:
            if record.end.alone or self._everyone(record, living):
                return record
            return self._saved(replace(record, end=replace(record.end, alone=True)))
        if record.process is None or self._lives(record):
            return record
        ended = replace(record, end=self._end(record, record.process, living))
        if ended.stop is not None:
            soon_s = self.time.monotonic_s() + LEFTOVERS_GRACE_S
            last_resort_s = min(ended.stop.last_resort_s, soon_s)
            ended = replace(ended, stop=replace(ended.stop, last_resort_s=last_resort_s))
        return self._saved(ended)

    def _end(self, record: Record, process: Identity, living: Families) -> End:
        """Say how a bootstrap ended: only its parent knows the exit code, else its own last status."""
        # Looked for before the bootstrap is collected: as long as it is there, its session is.
        left = tuple(living.of(record.instance_id))
        code, status = reap(process), self._status(record)
        if code is None:
            code = _exit_code(status)
        # One that ran and went while no controller looked left; it need not have failed.
        failed = code != 0 if code is not None else status.get("state") not in AFTER_START
        log = words.last_lines(self.log_of(record.instance_id), words.LOOK_BACK_LINES)
        return End(
            code,
            self.time.now_s(),
            words.detail(code, log),
            failed=failed,
            alone=not left,
            left=left,
        )

    def _stop(self, record: Record, living: Families) -> None:
        now_s = self.time.monotonic_s()
        lives = record.process is not None and self._lives(record)
        grace_s = record.grace_s if lives or record.process is None else LEFTOVERS_GRACE_S
        self._saved(replace(record, stop=Stop(now_s, now_s + grace_s)))
        # The bootstrap passes TERM on to its children, in order. Without it they are told directly.
        if lives and record.process is not None:
            send(record.process, signal.SIGTERM)
        else:
            for process in self._everyone(record, living):
                send(process, signal.SIGTERM)

    def _everyone(self, record: Record, living: Families) -> list[Identity]:
        """Return the living processes of an instance: by tag, by session, and those noted at its end."""
        noted = [*(record.end.left if record.end else ()), *([record.process] if record.process else ())]
        known = [one for one in noted if record.boot_id == self._boot_id and is_alive(one)]
        return list(dict.fromkeys([*known, *living.of(record.instance_id)]))

    def _lives(self, record: Record) -> bool:
        same_boot = record.boot_id == self._boot_id
        return same_boot and record.process is not None and is_alive(record.process)

    def _saved(self, record: Record) -> Record:
        self.records.save(record)
        return record

    def _status(self, record: Record) -> dict[str, object]:
        try:
            return parse_status((self.records.place(record.instance_id) / STATUS).read_text(errors="replace"))
        except OSError:
            return {}

    def _state(self, record: Record) -> tuple[BackendState, str | None]:
        if record.stop is not None:
            return BackendState.STOPPING, None
        if record.end is not None:
            return (BackendState.FAILED if record.end.failed else BackendState.ENDED), record.end.detail
        status = self._status(record)
        if status.get("state") == "running":
            return BackendState.RUNNING, None
        return BackendState.STARTING, str(status["detail"]) if status.get("detail") else None


def parse_status(text: str) -> dict[str, object]:
    """Read what the bootstrap writes: a JSON object with `state`, or that word alone."""
    try:
        found = json.loads(text)
    except ValueError:
        return {"state": text.strip()}
    return found if isinstance(found, dict) else {}


def _exit_code(status: dict[str, object]) -> int | None:
    code = status.get("exit_code")
    return code if isinstance(code, int) and not isinstance(code, bool) else None
