"""The controller's process: wires the loop to Ray, the providers, the journal and the control socket.

One of the product's composition roots. Started by the head's wrapper; ends with 0 when
the cluster is down, and with anything else only when it should be started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TextIO, cast

import structlog

from heliostat import __version__
from heliostat.api.server import create_app, serve
from heliostat.cli.autoscaler import V1, FitForV1
from heliostat.cli.backends import CompletedSource, backend_keys, completed, make
from heliostat.cli.children import ORPHAN_SIGNAL
from heliostat.cli.clusters import CONTROLLER_STARTS
from heliostat.cli.driver_notes import note_for_drivers
from heliostat.cli.head_lease import HeadLease, follow
from heliostat.cli.launch_file import LaunchFile
from heliostat.cli.system import RandomIds, SystemClock, abstract_lock, controller_lock, lock_holder
from heliostat.cli.unfailing_log import UnfailingLog
from heliostat.cli.why_file import read_why
from heliostat.config.cluster_file import FileConfigSource
from heliostat.config.places import RuntimePlaces, StatePlaces, ensure_private_dir, site_file
from heliostat.config.ray_file import write_ray_file
from heliostat.config.record import ClusterRecord, read_record, write_record
from heliostat.control.garbage import collect_rarely
from heliostat.control.loop import Controller
from heliostat.control.measures import Measures
from heliostat.control.operations import Operations
from heliostat.control.provision import RayProvision
from heliostat.control.steady_clock import SteadyClock
from heliostat.control.wiring import Identity, Ports, Timing
from heliostat.journal import SqliteJournal
from heliostat.model.instance import Intent
from heliostat.model.node_type import ClusterSpec
from heliostat.node import BOOTSTRAP_PATH
from heliostat.ports.clock import Clock
from heliostat.ports.config_source import ConfigSource
from heliostat.ports.errors import ClusterUnreachable, HeliostatError, StrangerCluster, TokenRefused
from heliostat.ports.journal import Event
from heliostat.ports.provider import ClusterIdentity, ProviderContext, Recall
from heliostat.raylink.gcs import GcsCluster, GcsSettings
from heliostat.raylink.ready import HeadReady, session_log_dir, wait_until_ready
from heliostat.raylink.token import read_token

log = structlog.get_logger(__name__)

HEAD_START_S = 90.0
"""How long a head may take to come up, or to be found again, before the loop begins without it."""

LEFT = "the wrapper is gone: head and workers are left as they are for the next `heliostat up`"


class Ending:
    """How this process is asked to end: `stop` by a signal, `orphaned` as well if its wrapper is gone."""

    def __init__(self) -> None:
        self.stop, self.orphaned = asyncio.Event(), asyncio.Event()

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        loop.add_signal_handler(ORPHAN_SIGNAL, self._lose_wrapper)

    def _lose_wrapper(self) -> None:
        self.orphaned.set()
        self.stop.set()


def config_source(record: ClusterRecord, places: StatePlaces) -> FileConfigSource:
    """Return the source of the applied copy; its relative paths are those of the user's file."""
    return FileConfigSource(
        places.config,
        backends=backend_keys(),
        site_file=site_file(os.environ),
        base_dir=Path(record.source).parent,
    )


def provider_context(
    record: ClusterRecord, spec: ClusterSpec, *, places: StatePlaces, backend: str, lease: HeadLease | None
) -> ProviderContext:
    return ProviderContext(
        identity=ClusterIdentity(record.cluster_name, record.cluster_uid, record.owner),
        options=spec.backends[backend],
        runtime_dir=record.runtime_dir,
        log_dir=str(places.logs),
        bootstrap_path=str(BOOTSTRAP_PATH),
        head_resources=spec.head_type.resources.units(),
        lease_end_s=lease.now if lease else lambda: None,
    )


def _on_clock(context: ProviderContext, clock: Clock) -> ProviderContext:
    """Return a provider's context on the controller's clock."""

    def lease_end_s() -> float | None:
        end_s = context.lease_end_s()
        return None if end_s is None else end_s - clock.host_time().ahead_s

    return replace(context, lease_end_s=lease_end_s, now_s=clock.now_s)


async def run(folder: Path) -> None:
    """Run the cluster of the state folder `folder` until it is down."""
    collect_rarely()
    ending = Ending()
    ending.listen()
    places = StatePlaces(folder)
    record, launch = read_record(places.record), LaunchFile.read(folder)
    if record is None:
        raise HeliostatError(f"{places.record} is missing: there is no cluster to control")
    with abstract_lock(controller_lock(record.cluster_uid)) as held:
        if not held:
            pid = lock_holder(controller_lock(record.cluster_uid))
            who = f": pid {pid}" if pid else ""
            raise HeliostatError(f"another controller of {record.cluster_name} runs on this host{who}")
        ensure_private_dir(Path(record.runtime_dir), uid=os.getuid())
        # Before anything else: without a journal nothing may be started.
        with contextlib.closing(SqliteJournal(places.journal, cluster_uid=record.cluster_uid)) as journal:
            await _run(places, record, launch=launch, journal=journal, ending=ending)


async def _run(
    places: StatePlaces,
    record: ClusterRecord,
    *,
    launch: LaunchFile,
    journal: SqliteJournal,
    ending: Ending,
) -> None:
    source = config_source(record, places)
    spec = source.load()
    lease = _lease(record, spec)
    clock = SteadyClock.after(journal, SystemClock())
    context = partial(provider_context, record, spec, places=places, lease=lease)
    providers = make(spec, lambda name: _on_clock(context(backend=name), clock))
    ready, why = await asyncio.to_thread(_head, record, launch, stop=ending.stop)
    if ready is not None and ready.session_name != record.session_name:
        # Read again: the wrapper may have started another head meanwhile, and written that down.
        record = replace(read_record(places.record) or record, session_name=ready.session_name)
        write_record(places.record, record)
    ports = Ports(
        cluster=GcsCluster(_gcs_settings(record, launch, clock)),
        providers=providers,
        journal=journal,
        clock=clock,
        ids=RandomIds(),
        telemetry=Measures(),
        config_source=_fitting(CompletedSource(source, providers), record),
        publish=_ray_file(places, record),
    )
    with contextlib.suppress(HeliostatError) if places.ray_file.exists() else contextlib.nullcontext():
        # On a full disk the one that is there does as well.
        ports.publish(completed(spec, providers))
    _recall(ports)
    try:
        controller = _controller(ports, completed(spec, providers), record=record, launch=launch)
        if not record.session_name or why:
            # Whatever answers there later is not known to be ours, so nothing is asked of it.
            controller.go_down(why or "the head did not come up")
        async with _lease_followed(lease, record, launch, places=places, ports=ports):
            await _control(controller, record, ending=ending)
    finally:
        for provider in providers.values():
            await provider.aclose()
        if lease is not None:
            await lease.aclose()
        await ports.cluster.aclose()


def _fitting(source: ConfigSource, record: ClusterRecord) -> ConfigSource:
    return FitForV1(source) if record.autoscaler == V1 else source


def _ray_file(places: StatePlaces, record: ClusterRecord) -> Callable[[ClusterSpec], None]:
    """Return what writes the file that Ray's own autoscaler reads in each round, where that decides."""
    control_socket = str(RuntimePlaces(Path(record.runtime_dir)).control_socket)

    def publish(spec: ClusterSpec) -> None:
        if spec.policy.ray_decides:
            write_ray_file(places.ray_file, spec, control_socket=control_socket)

    return publish


def _recall(ports: Ports) -> None:
    """Tell the providers what an earlier controller asked for: it may have ended while none was there."""
    wanted = [one for one in ports.journal.intents() if one.intent is Intent.WANTED]
    for name, provider in ports.providers.items():
        backend: object = provider
        if isinstance(backend, Recall):
            backend.recall({one.instance_id: one.requested_at_s for one in wanted if one.backend == name})


def _controller(ports: Ports, spec: ClusterSpec, *, record: ClusterRecord, launch: LaunchFile) -> Controller:
    return Controller(
        ports,
        spec=spec,
        identity=_identity(record),
        timing=Timing(),
        idle_after_s=launch.idle_after_s,
    )


@contextlib.asynccontextmanager
async def _lease_followed(
    lease: HeadLease | None, record: ClusterRecord, launch: LaunchFile, *, places: StatePlaces, ports: Ports
) -> AsyncIterator[None]:
    """While the block runs, follow the end of a head that is a job; drivers and the journal are told."""

    if lease is None:
        yield
        return

    def tell(text: str) -> None:
        if record.session_name:
            note_for_drivers(session_log_dir(launch.head_temp_dir, record.session_name), text)
        try:
            ports.journal.record_events([Event(ports.clock.now_s(), "lease", text)])
            _keep(lease, record, places)
        except HeliostatError as error:
            # A disk that is full costs the line, and must not end the watch.
            log.warning("the head's lease could not be noted", error=str(error))

    # Slurm, which takes nothing from a host whose clock is minutes off (munge), says it by this host's.
    following = asyncio.create_task(follow(lease, clock=SystemClock(), tell=tell))
    try:
        yield
    finally:
        following.cancel()


def _lease(record: ClusterRecord, spec: ClusterSpec) -> HeadLease | None:
    if record.job is None:
        return None
    # Loaded only where the head is a job.
    from heliostat.cli.head_queue import lease_of

    return lease_of(record, spec)


def _keep(lease: HeadLease, record: ClusterRecord, places: StatePlaces) -> None:
    """Write the lease's end down, for a controller that is started again."""
    now, end_s = read_record(places.record), lease.end_s or 0.0
    if (
        now is None
        or now.cluster_uid != record.cluster_uid
        or now.job is None
        or now.job.lease_end_s == end_s
    ):
        return
    write_record(places.record, replace(now, job=replace(now.job, lease_end_s=end_s)))


async def _control(controller: Controller, record: ClusterRecord, *, ending: Ending) -> None:
    controlling = asyncio.current_task()

    async def hear() -> None:
        await ending.stop.wait()
        if ending.orphaned.is_set() and record.gcs_storage is not None:
            # Nobody told the cluster to end. The next `up` goes on from here.
            assert controlling is not None
            controlling.cancel(LEFT)
            return
        controller.go_down(read_why(record.runtime_dir))

    socket_path = RuntimePlaces(Path(record.runtime_dir)).control_socket
    hearing = asyncio.create_task(hear())
    try:
        async with _served(controller, socket_path):
            await controller.run()
    finally:
        hearing.cancel()


@contextlib.asynccontextmanager
async def _served(controller: Controller, socket_path: Path) -> AsyncIterator[None]:
    async with serve(create_app(Operations(controller), RayProvision(controller)), socket_path):
        yield


def _identity(record: ClusterRecord) -> Identity:
    return Identity(
        cluster_name=record.cluster_name,
        cluster_uid=record.cluster_uid,
        address=record.address,
        dashboard_url=record.dashboard_url,
        ray_version=record.ray_version,
        python_version=record.python_version,
        pid=os.getpid(),
        version=__version__,
    )


def _head(record: ClusterRecord, launch: LaunchFile, *, stop: asyncio.Event) -> tuple[HeadReady | None, str]:
    """Wait for the head: return it, or None; and why the cluster must go down, if another head answers.

    One that does not come in time is the loop's to deal with.
    """
    token = read_token(Path(record.token_path))
    try:
        ready = wait_until_ready(
            record.address,
            token=token,
            temp_dir=launch.head_temp_dir,
            deadline_s=HEAD_START_S,
            alive=lambda: not stop.is_set(),
        )
    except TokenRefused as error:
        log.warning("the head refuses us", error=str(error))
        return None, ""
    except StrangerCluster as error:
        return None, str(error)
    except ClusterUnreachable as error:
        log.warning("the head is not there", error=str(error))
        return None, ""
    if record.session_name and ready.session_name != record.session_name:
        return None, f"the head was restarted: session {ready.session_name}, ours was {record.session_name}"
    return ready, ""


def _gcs_settings(record: ClusterRecord, launch: LaunchFile, clock: Clock) -> GcsSettings:
    return GcsSettings(
        address=record.address,
        cluster_uid=record.cluster_uid,
        started_by=f"heliostat {__version__}",
        token=partial(read_token, Path(record.token_path)),
        clock=clock,
        session_name=record.session_name or None,
        # What drivers are told, and the metrics, are those of whoever decides.
        log_dir=session_log_dir(launch.head_temp_dir, record.session_name)
        if record.session_name and not record.autoscaler
        else None,
        serve_metrics=not record.autoscaler,
    )


def _configure_log() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", UnfailingLog(sys.stderr))),
    )


def main() -> None:
    _configure_log()
    log.info(CONTROLLER_STARTS, pid=os.getpid(), python=platform.python_version())
    try:
        asyncio.run(run(Path(sys.argv[1])))
    except HeliostatError as error:
        log.error(str(error))
        sys.exit(1)
    except asyncio.CancelledError:
        log.warning(LEFT)
        sys.exit(1)


if __name__ == "__main__":
    main()
