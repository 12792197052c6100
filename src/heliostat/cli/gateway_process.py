"""The gateway's process: from a checked file and a cluster that is up to a service that people call.

One of the product's composition roots. It serves whatever cluster of the name runs: one that goes down and
comes up again is found again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import structlog

from heliostat import __version__
from heliostat.api.client import ControllerClient
from heliostat.cli import far_driver
from heliostat.cli.clusters import client_of, pick
from heliostat.cli.output import is_terminal, tell
from heliostat.cli.system import SystemClock
from heliostat.cli.unfailing_log import UnfailingLog
from heliostat.config.places import StatePlaces, ensure_private_dir
from heliostat.config.record import ClusterRecord
from heliostat.model.gateway import GatewaySettings, token_variables
from heliostat.model.node_type import ClusterSpec
from heliostat.model.report import StatusReport
from heliostat.ports.errors import HeliostatError

if TYPE_CHECKING:
    from heliostat.gateway.app import Gateway
    from heliostat.gateway.work.workplace import DriverCommand, WorkSettings

STATUS_TIMEOUT_S = 5.0
CALL_ID_BYTES = 5
"""40 random bits: an id is looked up among a caller's own calls only, and never twice in one log."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DRIVER = "heliostat.gateway.work.driver"
"""The module that is the driver. It is not imported here: Ray is the driver's alone."""


@dataclass(frozen=True)
class GatewayStart:
    """What a gateway is started with. `spec` has a gateway, `places.gateway` is there, and this process has
    the lock."""

    spec: ClusterSpec
    record: ClusterRecord
    places: StatePlaces
    socket_path: Path

    @property
    def settings(self) -> GatewaySettings:
        assert self.spec.gateway is not None
        return self.spec.gateway


def run_gateway(start: GatewayStart) -> None:
    """Serve callers until a signal ends it. Raises HeliostatError where nobody can be served any more."""
    _log_to(sys.stderr)
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(_serve(start))
    tell(f"the gateway of {start.record.cluster_name} has ended")


def sign_in_before(spec: ClusterSpec, places: StatePlaces) -> None:
    """Have somebody sign in for a gateway that begins later and without a terminal, unless a token holds.

    Raises HeliostatError where nobody does, or where Hypha's client is not installed.
    """
    from heliostat.gateway.app import Alone, sign_in_first
    from heliostat.gateway.hypha.sign_in import TextDisplay

    assert spec.gateway is not None
    shown = Alone(SystemClock(), TextDisplay(sys.stderr))
    ensure_private_dir(places.folder, uid=os.getuid())
    folder = ensure_private_dir(places.gateway, uid=os.getuid())
    asyncio.run(
        sign_in_first(spec.gateway, folder, client_id=client_id(spec.name), environ=os.environ, shown=shown)
    )


def client_id(cluster: str) -> str:
    """Return a gateway's name at its server: the same after every restart, so that callers find it."""
    return f"heliostat-{cluster}"


async def _serve(start: GatewayStart) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    gateway = _gateway(start)

    def end() -> None:
        if not stop.is_set():
            tell("letting no call in any more; those in flight come to their end (again: they are ended now)")
            stop.set()
        else:
            gateway.hurry()

    for number in _stop_signals():
        loop.add_signal_handler(number, end)
    await gateway.run(stop)


def _stop_signals() -> list[signal.Signals]:
    """Return what ends the gateway. `nohup` has a hang-up ignored, and so it stays."""
    hears_of_it = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [number for number in STOP_SIGNALS if number is not signal.SIGHUP or hears_of_it]


class _Loop(asyncio.SelectorEventLoop):
    """A loop that logs what nobody has caught, but that Hypha's client is cut off within a message by our
    own end. No handler of a loop would do: that client sets it, and takes it away as it closes."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), asyncio.CancelledError):
            super().call_exception_handler(context)


def _gateway(start: GatewayStart) -> Gateway:
    from heliostat.gateway.app import Gateway, Surroundings
    from heliostat.gateway.hypha.sign_in import TextDisplay

    name = start.record.cluster_name
    about = {"cluster": name, "version": __version__}
    around = Surroundings(
        folder=start.places.gateway,
        socket_path=start.socket_path,
        client_id=client_id(name),
        environ=_environment_without(token_variables(start.settings)),
        display=TextDisplay(sys.stderr),
        time=SystemClock(),
        new_id=lambda: f"c{secrets.token_hex(CALL_ID_BYTES)}",
        about=about,
        facts={**about, "cluster_name": name, "file": start.record.source, "pid": os.getpid()},
    )
    return Gateway(start.settings, around, work=_work(start), status=_status_of(name))


def _environment_without(variables: Collection[str]) -> Mapping[str, str]:
    """Return this process's environment; the variables are in none of what is started from now on.

    `srun` takes all of an environment along, to where callers' code may run.
    """
    found = dict(os.environ)
    for name in variables:
        os.environ.pop(name, None)
    return found


def _work(start: GatewayStart) -> WorkSettings:
    from heliostat.gateway.work.workplace import WorkSettings

    settings = start.settings
    limits = [entry.limits.payload_bytes for entry in settings.allow]
    return WorkSettings(
        driver=lambda: _driver(start.record.cluster_name, without=token_variables(settings)),
        shapes=_shapes(start.spec),
        sandbox=settings.sandbox,
        functions=settings.functions,
        runtime_env=settings.runtime_env,
        result_bytes=max(limits, default=0),
    )


def _shapes(spec: ClusterSpec) -> Mapping[str, Mapping[str, float]]:
    return {one.name: one.resources.units() for one in spec.policy.node_types}


def _driver(name: str, *, without: Collection[str]) -> DriverCommand:
    """Return how a driver is started beside the head of the cluster that has this name now."""
    from heliostat.gateway.work.silence import FAR
    from heliostat.gateway.work.workplace import DriverCommand

    record = pick(name)
    argv = [record.python or sys.executable, "-m", DRIVER, *([FAR] if far_driver.is_far(record) else [])]
    command = far_driver.pipe_to(record, argv, without=without)
    return DriverCommand(command.argv, command.environment)


def _status_of(name: str) -> Callable[[], Awaitable[StatusReport | None]]:
    controller = _Controller(name)

    def look() -> StatusReport | None:
        try:
            return controller.client().status(timeout_s=STATUS_TIMEOUT_S)
        except HeliostatError:
            # It may be down, come up, or be of another version: later it may answer.
            return None

    # A thread of its own: a controller that hangs must hold up nothing else.
    thread = ThreadPoolExecutor(1, thread_name_prefix="status")

    async def status() -> StatusReport | None:
        return await asyncio.get_running_loop().run_in_executor(thread, look)

    return status


class _Controller:
    """The way to the controller of whatever cluster has this name now, kept while it is the same cluster.

    To a head elsewhere each new way is another step of its job, or another login.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._kept: tuple[ClusterRecord, ControllerClient] | None = None

    def client(self) -> ControllerClient:
        """Return it; raises HeliostatError while there is no such cluster."""
        record = pick(self._name)
        if self._kept is None or self._kept[0] != record:
            if self._kept is not None:
                self._kept[1].close()
            self._kept = record, client_of(record)
        return self._kept[1]


def _log_to(stream: TextIO) -> None:
    """Write what the gateway, its client and its driver's keeper have to say as lines for people."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=is_terminal(stream)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", UnfailingLog(stream))),
    )
    logging.basicConfig(
        stream=cast("TextIO", UnfailingLog(stream)),
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
    )
    logging.getLogger("heliostat").setLevel(logging.INFO)
