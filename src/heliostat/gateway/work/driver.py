"""The driver: the child process of the gateway that is a driver of the cluster, beside its head.

    python -m heliostat.gateway.work.driver [--far]

It speaks `Frames` over its standard streams, so that it may as well be started through ssh or srun (with
`--unbuffered`) where the head is on another host, with `--far`. It ends when its standard input does, or,
far away, when it hears nothing any more (`silence`), and with it, by Ray's own rule, all that it has begun.
Ray itself ends it when the head goes; whoever asked then hears that the pipe did.

Messages are parcels of objects. To the driver: first what `Begin` needs, then `{"n", "op", "args"}`, or
`{"n", "op": "cancel"}`. From it, after the greeting: `{"ready", "trouble"}`, then for each `n` any number of
`{"n", "began"}` and one of `{"n", "outcome"}`, `{"n", "value"}` and `{"n", "error": {"code", "message"}}`;
none after it was cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from typing import Any

import ray

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.work import driver_pipes, functions, head_watch, jobs, silence, tasks
from heliostat.gateway.work.frames import Broken, Frames
from heliostat.gateway.work.on_node import ScriptTask
from heliostat.gateway.work.parcel import Damaged, pack, unpack
from heliostat.gateway.work.port import Needs
from heliostat.model.gateway import DRIVER_NAMESPACE
from heliostat.ports.errors import ConfigError

log = logging.getLogger("heliostat.gateway.driver")

CARRIED = ("keeper.py", "script_host.py", "parcel.py")
CLOSE_TIMEOUT_S = 10.0
TIDY_S = 30.0
STREAM_BYTES = 2**20


class Driver:
    """What answers the gateway. One receives, each request has a task of its own."""

    def __init__(
        self,
        frames: Frames,
        published: Mapping[str, functions.Published],
        asked: jobs.Jobs,
        *,
        heard: Callable[[], None],
    ) -> None:
        folder = resources.files("heliostat.gateway.work")
        self._code = {name: (folder / name).read_text("utf-8") for name in CARRIED}
        self._frames = frames
        self._heard = heard
        self._published = published
        self._jobs = asked
        self._requests: dict[int, asyncio.Task[None]] = {}
        self._work: Mapping[str, Callable[[tasks.Began, Any], Awaitable[dict[str, Any]]]] = {
            "script": self._script,
            "call": self._call,
        }
        self._asked: Mapping[str, Callable[[Any], Awaitable[Any]]] = {
            "ping": self._ping,
            "functions": self._functions,
            "submit": self._submit,
            "job_status": lambda args: asked.status(args["job_id"]),
            "stop_job": lambda args: asked.stop(args["job_id"]),
            "open_log": lambda args: asked.open_log(args["job_id"]),
            "next_lines": lambda args: asked.next_lines(args["log"]),
            "close_log": lambda args: asked.close_log(args["log"]),
        }

    async def serve(self) -> None:
        """Answer until the pipe ends, then end what is under way."""
        tidying = asyncio.create_task(self._tidy())
        try:
            while True:
                message = await _opened(await self._frames.receive())
                self._heard()
                self._take(message)
        except Broken:
            log.info("the gateway has closed the pipe")
        finally:
            tidying.cancel()
            await self._end_requests()

    def _take(self, message: Mapping[str, Any]) -> None:
        number = int(message["n"])
        if message["op"] == "cancel":
            if number in self._requests:
                self._requests[number].cancel()
            return
        task = asyncio.create_task(self._answer(number, str(message["op"]), message["args"]))
        self._requests[number] = task
        task.add_done_callback(lambda _: self._requests.pop(number, None))

    async def _answer(self, number: int, op: str, args: Mapping[str, Any]) -> None:
        try:
            reply = await self._done(number, op, args)
        except CallError as error:
            reply = {"error": {"code": error.code.value, "message": error.message}}
        except Exception:
            log.exception("%s of %s failed", op, args.get("call_id", number))
            reply = {"error": {"code": Code.INTERNAL.value, "message": "the gateway failed"}}
        with contextlib.suppress(Broken):
            await self._frames.send(await asyncio.to_thread(pack, {"n": number, **reply}))

    async def _done(self, number: int, op: str, args: Mapping[str, Any]) -> dict[str, Any]:
        if op in self._work:
            return {"outcome": await self._work[op](functools.partial(self._began, number), args)}
        return {"value": await self._asked[op](args)}

    async def _began(self, number: int, node: Mapping[str, Any]) -> None:
        await self._frames.send(pack({"n": number, "began": dict(node)}))

    async def _script(self, began: tasks.Began, args: Mapping[str, Any]) -> dict[str, Any]:
        needs = Needs(**args["needs"])
        task = ScriptTask(
            code=self._code, timeout_s=needs.timeout_s, cpus=needs.cpus, gpus=needs.gpus, **args["task"]
        )
        launch = functools.partial(tasks.script, task, needs, args["runtime_env"])
        return await tasks.followed(
            launch, began=began, timeout_s=needs.timeout_s, overtime_s=tasks.OVERTIME_S
        )

    async def _call(self, began: tasks.Began, args: Mapping[str, Any]) -> dict[str, Any]:
        one = self._known(args["function"])
        arguments = await asyncio.to_thread(one.checked, args["arguments"])
        needs = Needs(**args["needs"]) if args["needs"] else one.signature.needs
        launch = functools.partial(
            tasks.function,
            args["call_id"],
            one.function,
            arguments=arguments,
            needs=needs,
            result_bytes=args["result_bytes"],
        )
        return await tasks.followed(launch, began=began, timeout_s=needs.timeout_s, overtime_s=0.0)

    def _known(self, name: str) -> functions.Published:
        if name not in self._published:
            raise CallError(Code.INVALID, f"no function {name} is published here")
        return self._published[name]

    async def _functions(self, args: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "name": one.signature.name,
                "doc": one.signature.doc,
                "parameters": one.signature.parameters,
                "returns": one.signature.returns,
                "needs": vars(one.signature.needs),
            }
            for one in self._published.values()
        ]

    async def _submit(self, args: Mapping[str, Any]) -> str:
        return await self._jobs.submit(
            args["job_id"],
            args["entrypoint"],
            runtime_env=args["runtime_env"],
            needs=Needs(**args["needs"]),
        )

    async def _ping(self, args: Mapping[str, Any]) -> bool:
        return True

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_S)
            await self._jobs.close_idle_logs()

    async def _end_requests(self) -> None:
        requests = list(self._requests.values())
        for task in requests:
            task.cancel()
        if requests:
            await asyncio.wait(requests, timeout=CLOSE_TIMEOUT_S)


async def _opened(message: bytes) -> dict[str, Any]:
    """Return the message; a large one is opened beside the others."""
    try:
        large = len(message) > STREAM_BYTES
        found: dict[str, Any] = await asyncio.to_thread(unpack, message) if large else unpack(message)
    except Damaged as error:
        raise Broken(f"the gateway speaks otherwise: {error}") from error
    return found


async def _run(pipes: tuple[int, int], heard: Callable[[], None]) -> None:
    frames = await driver_pipes.frames(pipes)
    begin = await _opened(await frames.receive())
    heard()
    module, published, trouble = _published(begin["functions"])
    tasks.carry_along(*([module] if module else []))
    await frames.send(pack({"ready": True, "trouble": trouble}))
    driver = Driver(frames, published, jobs.Jobs(jobs.client, tasks.read_log), heard=heard)
    serving = asyncio.ensure_future(driver.serve())
    watching = asyncio.ensure_future(head_watch.gone(os.environ["RAY_ADDRESS"], _raylet_socket()))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    await asyncio.wait([serving, watching], return_when=asyncio.FIRST_COMPLETED)
    if watching.done():
        log.error("the head is gone: %s", watching.result())
        logging.shutdown()
        # Whatever else is asked of Ray now may hang. Whoever waits hears that the pipe has ended.
        os._exit(1)
    watching.cancel()


def _raylet_socket() -> str:
    """Return the socket of this driver's own raylet, empty where Ray does not tell."""
    node = ray._private.worker._global_node
    return str(getattr(node, "raylet_socket_name", "") or "")


def _connect() -> None:
    # How it lets us in stands in the environment too. Without an address Ray would start a cluster of its
    # own.
    address = os.environ["RAY_ADDRESS"]
    ray.init(
        address,
        namespace=DRIVER_NAMESPACE,
        log_to_driver=False,
        logging_level=logging.WARNING,
        configure_logging=False,
    )


def _published(where: str | None) -> tuple[Any, Mapping[str, functions.Published], str]:
    """Return the owner's module and what it publishes. One that is wrong costs its functions, and no more."""
    if not where:
        return None, {}, ""
    try:
        module, found = functions.load(where)
    except ConfigError as error:
        log.error("%s", error)
        return None, {}, str(error)
    return module, found, ""


def _near() -> None:
    """Need to hear nothing: the kernel tells when the gateway has ended."""


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    pipes = driver_pipes.taken()
    heard = silence.heard if silence.FAR in sys.argv[1:] else _near
    heard()
    code = 0
    try:
        _connect()
        asyncio.run(_run(pipes, heard))
        ray.shutdown()
    except (Broken, ConnectionError, RuntimeError) as error:
        log.error("the driver ends: %s", error)
        code = 1
    logging.shutdown()
    # A thread that waits for a silent head would keep this process for ever.
    os._exit(code)


if __name__ == "__main__":
    main()
