"""The local provider: Ray worker nodes as processes on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from heliostat.model.instance import BackendInstance, Change, LaunchRequest, Offer, OfferQuery, Role
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.errors import InvalidRequest, ProviderError, Unavailable
from heliostat.ports.provider import Outcome, ProviderContext
from heliostat.providers.local import words
from heliostat.providers.local.completion import complete_type, misfits
from heliostat.providers.local.environment import start_document, worker_environment
from heliostat.providers.local.inventory import Machine, head_gpus, read_gpus, read_machine
from heliostat.providers.local.lifecycle import Lifecycle, SystemTime
from heliostat.providers.local.options import parse_options
from heliostat.providers.local.processes import boot_id, is_alive, spawn
from heliostat.providers.local.records import START, STATUS, VALID_ID, Record, Records, disk_error
from heliostat.providers.local.room import Holder, Room, lowest_free_name

STOPPING_PERIOD_S = 0.2
"""How often instances that are stopping are looked after."""
WATCH_PERIOD_S = 1.0
"""How often running ones are: an ended child is collected within this time."""
TROUBLE_PERIOD_S = 5.0
GPU_RETRY_S = 60.0
"""How long an nvidia-smi that hung is not asked again."""
DRAIN_GRACE_S = 30.0
GRACE_MARGIN_S = 5.0

Found = TypeVar("Found")


class LocalProvider:
    """See ports.provider.Provider; also Diagnose and Probe.

    Blocking work is done in a thread, one piece at a time and always to its end, so a
    caller that is cancelled leaves nothing half done.
    """

    name: Final = "local"

    def __init__(
        self,
        context: ProviderContext,
        *,
        environment: Mapping[str, str] = os.environ,
        time: SystemTime | None = None,
    ) -> None:
        self._context = context
        self._environment = environment
        self._options = parse_options(context.options)
        self._machine = read_machine(self._options)
        self._time = time or SystemTime(context.now_s)
        self._log_dir = Path(context.log_dir)
        self._records = Records(Path(context.runtime_dir) / "i")
        self._life = Lifecycle(
            self._records,
            cluster_uid=context.identity.cluster_uid,
            log_dir=self._log_dir,
            time=self._time,
        )
        self._gpus: tuple[str, ...] | None = None
        self._gpu_trouble: tuple[float, ProviderError] | None = None
        self._asking: asyncio.Future[None] | None = None
        self._swept = False
        self._closed = False
        self._turn = asyncio.Lock()
        self._works: set[asyncio.Future[Any]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._living: list[Record] = []

    # The port.

    async def offers(self, queries: Sequence[OfferQuery]) -> Sequence[Offer]:
        await self._know_gpus([query.node_type for query in queries])
        return await self._work(lambda: [self._offer(query) for query in queries])

    async def apply(self, change: Change) -> Outcome:
        await self._know_gpus([request.node_type for request in change.launch])
        return await self._work(lambda: self._apply(change))

    async def instances(self) -> Sequence[BackendInstance]:
        return await self._work(self._list)

    async def aclose(self) -> None:
        """Stop looking after instances; they go on, and the next provider finds them."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await asyncio.gather(*self._works, return_exceptions=True)

    # Diagnose and Probe.

    async def last_words(self, instance_id: str, *, lines: int = 20) -> Sequence[str]:
        if not VALID_ID.fullmatch(instance_id):
            return []
        return await asyncio.to_thread(words.last_lines, self._life.log_of(instance_id), lines)

    def complete(self, node_type: NodeType) -> NodeType:
        return complete_type(node_type, self._machine)

    async def check(self, node_types: Sequence[NodeType]) -> Sequence[str]:
        await self._know_gpus(node_types)
        try:
            return await self._work(lambda: self._check(node_types))
        except ProviderError as error:
            return [str(error)]

    # One piece of work at a time.

    async def _work(self, work: Callable[[], Found]) -> Found:
        """Run blocking work in a thread; a caller that is cancelled does not wait for its end."""
        piece = asyncio.ensure_future(self._in_turn(work))
        self._works.add(piece)
        piece.add_done_callback(self._forget)
        return await asyncio.shield(piece)

    async def _in_turn(self, work: Callable[[], Found]) -> Found:
        async with self._turn:
            try:
                return await asyncio.to_thread(work)
            finally:
                self._look_after()

    def _forget(self, piece: asyncio.Future[Any]) -> None:
        self._works.discard(piece)
        if not piece.cancelled():
            piece.exception()  # Nobody may be left to hear it.

    def _look_after(self) -> None:
        if self._living and not self._closed and (self._keeper is None or self._keeper.done()):
            self._keeper = asyncio.ensure_future(self._keep())

    async def _keep(self) -> None:
        """Look after what lives or stops, until nothing does."""
        while self._living:
            stopping = any(record.stop or record.end for record in self._living)
            await asyncio.sleep(STOPPING_PERIOD_S if stopping else WATCH_PERIOD_S)
            try:
                if stopping or await asyncio.to_thread(self._one_is_over):
                    await self._work(self._tend)
            except ProviderError:
                # The next listing says it; here there is nobody to tell.
                await asyncio.sleep(TROUBLE_PERIOD_S)

    def _one_is_over(self) -> bool:
        return any(record.process and not is_alive(record.process) for record in list(self._living))

    # Blocking, in a thread.

    def _tend(self) -> list[Record]:
        if not self._swept:
            self._records.sweep()
            self._swept = True
        records = self._life.tend()
        self._living = [one for one in records if one.holds_its_slot or one.stop is not None]
        return records

    def _list(self) -> list[BackendInstance]:
        records = self._tend()
        for record in records:
            words.trim(self._life.log_of(record.instance_id))
        host = socket.gethostname()
        return [self._life.row(record, host=host) for record in records]

    def _apply(self, change: Change) -> Outcome:
        terminations: dict[str, ProviderError] = {}
        for instance_id in change.terminate:
            try:
                self._life.stop([instance_id])
            except ProviderError as error:
                terminations[instance_id] = error
        launches: dict[str, ProviderError] = {}
        members: dict[str, ProviderError] = {}
        self._tend()
        for request in change.launch:
            failed = self._launch(request)
            if len(failed) == request.count and len(set(map(str, failed.values()))) == 1:
                launches[request.launch_id] = failed[request.instance_ids[0]]
            else:
                members.update(failed)
        if change.launch:
            self._tend()
        return Outcome(launches, members, terminations)

    def _launch(self, request: LaunchRequest) -> dict[str, ProviderError]:
        """Start the members that are not there yet; return those that could not be."""
        if not VALID_ID.fullmatch(request.launch_id):
            error = InvalidRequest(f"a launch id has letters and digits only: {request.launch_id!r}")
            return dict.fromkeys(request.instance_ids, error)
        missing = [one for one in request.instance_ids if not self._records.exists(one)]
        failed: dict[str, ProviderError] = {}
        try:
            request = self._completed(request)
            if request.together:
                self._room_for_all(request, len(missing))
        except ProviderError as refusal:
            return dict.fromkeys(missing, refusal)
        for instance_id in missing:
            try:
                self._start(request, instance_id)
            except ProviderError as refusal:
                failed[instance_id] = refusal
        return failed

    def _room_for_all(self, request: LaunchRequest, count: int) -> None:
        """Raise what is in the way of so many at once: of a gang that does not fit nothing is started."""
        wanted = request.node_type.resources
        records = self._records.all(self._context.identity.cluster_uid)
        _, obstacle = self._room(records, wanted).how_many(wanted, count)
        if obstacle is not None:
            raise obstacle

    def _completed(self, request: LaunchRequest) -> LaunchRequest:
        if request.role is not Role.WORKER:
            raise InvalidRequest("the local backend starts workers only; `heliostat up` starts the head")
        return replace(request, node_type=self.complete(request.node_type))

    def _start(self, request: LaunchRequest, instance_id: str) -> None:
        """Claim, note, start, note the process: each step can be taken up after a crash."""
        records = self._records.all(self._context.identity.cluster_uid)
        record = self._new_record(request, instance_id, records)
        folder = self._records.place(instance_id)
        document = start_document(
            request, self._options, instance_id=instance_id, status_file=str(folder / STATUS)
        )
        environment = worker_environment(
            self._environment,
            request,
            instance_id=instance_id,
            cluster_uid=record.cluster_uid,
            gpus=record.gpus,
        )
        if not self._records.claim(record, document):
            return
        command = [sys.executable, "-u", self._context.bootstrap_path, str(folder / START)]
        try:
            self._log_dir.mkdir(parents=True, exist_ok=True)
            words.prune(self._log_dir, keep={one.instance_id for one in records})
            process = spawn(command, environment=environment, log=self._life.log_of(instance_id))
        except OSError as error:
            self._records.remove(instance_id)
            raise disk_error(self._log_dir, error) from error
        self._records.save(replace(record, process=process))

    def _new_record(self, request: LaunchRequest, instance_id: str, records: Sequence[Record]) -> Record:
        node_type = request.node_type
        gpus = self._room(records, node_type.resources).place(node_type.resources)
        return Record(
            instance_id=instance_id,
            cluster_uid=self._context.identity.cluster_uid,
            node_type=node_type.name,
            shape_id=node_type.shape_id,
            native_id=lowest_free_name(record.native_id for record in records),
            gpus=gpus,
            units=node_type.resources.units(),
            grace_s=self._grace_s(request),
            boot_id=boot_id(),
            claimed_at_s=self._time.now_s(),
            claimed_s=self._time.monotonic_s(),
        )

    def _grace_s(self, request: LaunchRequest) -> float:
        if self._options.terminate_grace_s is not None:
            return self._options.terminate_grace_s
        drain_s = request.start.get("drain_grace_s", DRAIN_GRACE_S)
        return (drain_s if isinstance(drain_s, int | float) else DRAIN_GRACE_S) + GRACE_MARGIN_S

    def _offer(self, query: OfferQuery) -> Offer:
        price = query.node_type.price_usd_per_h or None
        try:
            wanted = self.complete(query.node_type).resources
            room = self._room(self._records.all(self._context.identity.cluster_uid), wanted)
        except ProviderError as error:
            return Offer(query.node_type.name, 0, price_usd_per_h=price, why=str(error))
        count, obstacle = room.how_many(wanted, query.count)
        return Offer(
            query.node_type.name,
            count,
            ready_at_s=self._time.now_s() if count else None,
            price_usd_per_h=price,
            why=str(obstacle) if obstacle else None,
        )

    def _check(self, node_types: Sequence[NodeType]) -> Sequence[str]:
        problems, whole = [], []
        for node_type in node_types:
            try:
                whole.append(self.complete(node_type))
            except InvalidRequest as error:
                problems.append(f"{node_type.name}: {error}")
        wants_gpu = any(one.resources.get("GPU") for one in node_types)
        room = self._room([], Resources.of({"GPU": 1}) if wants_gpu else Resources())
        return problems + misfits(whole, room)

    # The machine and who holds it.

    def _room(self, records: Sequence[Record], wanted: Resources) -> Room:
        """Return who holds what; GPUs only if `wanted` has some, since asking for them may fail."""
        gpus = self._known_gpus() if wanted.get("GPU") else ()
        holders = [Holder(one.native_id, one.resources, one.gpus) for one in records if one.holds_its_slot]
        head = self._context.head_resources
        if head:
            holders.insert(0, Holder("head", Resources.of(head), head_gpus(gpus, head) if gpus else ()))
        return Room(self._machine, gpus, tuple(holders))

    def _known_gpus(self) -> tuple[str, ...]:
        if self._gpus is not None:
            return self._gpus
        assert self._gpu_trouble is not None, "_know_gpus comes first"
        raise self._gpu_trouble[1]

    async def _know_gpus(self, node_types: Sequence[NodeType]) -> None:
        """Look for GPUs if a type wants some and they are not known; one nvidia-smi at a time.

        Not as a piece of work in its turn: a listing must not wait for an nvidia-smi that hangs.
        """
        if self._gpus is not None or not any(one.resources.get("GPU") for one in node_types):
            return
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(asyncio.to_thread(self._ask_for_gpus))
        await asyncio.shield(self._asking)

    def _ask_for_gpus(self) -> None:
        now_s = self._time.monotonic_s()
        if self._gpu_trouble is not None and now_s < self._gpu_trouble[0] + GPU_RETRY_S:
            return
        try:
            self._gpus = read_gpus(self._options, self._environment)
        except Unavailable as error:
            self._gpu_trouble = (self._time.monotonic_s(), error)


def machine_gpus(
    options: Mapping[str, object], environment: Mapping[str, str] = os.environ
) -> tuple[str, ...]:
    """Return the GPUs of this machine that the cluster may use, in the order of handing out.

    `options` is the section `provider.backends.local`. Blocks for 10 s at most; raises
    Unavailable when nvidia-smi hangs, InvalidRequest when the section is wrong. The
    head's own are `head_gpus(machine_gpus(options), head_resources)`.
    """
    return read_gpus(parse_options(options), environment)


def create(context: ProviderContext) -> LocalProvider:
    """Make the provider; starts and blocks nothing. InvalidRequest when the section is wrong."""
    with contextlib.suppress(OSError):
        Path(context.runtime_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
    return LocalProvider(context)


__all__ = ("LocalProvider", "Machine", "create", "machine_gpus")
