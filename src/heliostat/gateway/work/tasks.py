"""Ray tasks of calls, in the driver: launched, followed to their end, ended for real when nobody waits.

One of the modules that know Ray; none but the driver imports it.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import ray
from ray import cloudpickle, exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from heliostat.gateway.work import gpu_devices, on_node, parcel, sandbox
from heliostat.gateway.work.outcomes import WAIT_FOR_NODE_S
from heliostat.gateway.work.port import Needs

log = logging.getLogger(__name__)

Began = Callable[[Mapping[str, Any]], Awaitable[None]]

OVERTIME_S = 30.0
"""How long after its time a script's keeper may take to end it, clear up and answer."""

READ_TIMEOUT_S = 30.0
"""A node that is not used yet first starts a process for it."""

ENDS: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.TaskCancelledError, "stopped"),
    (exceptions.OutOfMemoryError, "memory"),
    (exceptions.RuntimeEnvSetupError, "runtime_env"),
    (exceptions.RayTaskError, "defect"),
    (exceptions.RayError, "lost"),
)
"""Ray's errors and the end that each is; the first that fits counts."""


def carry_along(*modules: Any) -> None:
    """Have Ray send these modules' functions themselves, so that no node needs the files."""
    for module in (on_node, gpu_devices, parcel, sandbox, *modules):
        cloudpickle.register_pickle_by_value(module)


def script(task: on_node.ScriptTask, needs: Needs, runtime_env: Mapping[str, Any] | None) -> Any:
    """Launch a script; returns Ray's generator of its two values."""
    return _remote(on_node.run_script, task.call_id, needs, runtime_env).remote(task)


def function(
    call_id: str,
    target: Callable[..., Any],
    *,
    arguments: Mapping[str, Any],
    needs: Needs,
    result_bytes: int,
) -> Any:
    """Launch a published function; returns Ray's generator of its two values."""
    remote = _remote(on_node.run_function, call_id, needs, None)
    return remote.remote(call_id, target, dict(arguments), result_bytes=result_bytes)


def _remote(
    body: Callable[..., Any], call_id: str, needs: Needs, runtime_env: Mapping[str, Any] | None
) -> Any:
    options: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus}
    if needs.memory_bytes is not None:
        options["memory"] = needs.memory_bytes
    if runtime_env:
        options["runtime_env"] = dict(runtime_env)
    # What a caller asked for once is not done twice because a worker died.
    return _known(body).options(
        name=f"heliostat:{call_id}", num_returns="streaming", max_retries=0, **options
    )


@functools.cache
def _known(body: Callable[..., Any]) -> Any:
    # Ray keeps a copy of each remote function for as long as its driver lives: one each is enough.
    return ray.remote(body)


async def followed(
    launch: Callable[[], Any], *, began: Began, timeout_s: float, overtime_s: float
) -> dict[str, Any]:
    """Return the work's outcome. However this ends, nothing of the work goes on afterwards."""
    values = await _launched(launch)
    began_s: float | None = None
    node: Mapping[str, Any] = {}
    try:
        async with asyncio.timeout(WAIT_FOR_NODE_S):
            node = await _next(values)
        began_s = time.monotonic()
        await began(node)
        async with asyncio.timeout(timeout_s + overtime_s):
            return {**await _next(values), **node}
    except TimeoutError:
        await _end(values)
        return {"end": "timeout" if began_s else "no_node", "ran_s": _since(began_s), **node}
    except asyncio.CancelledError:
        await _end(values)
        raise
    except (exceptions.RayError, StopAsyncIteration) as error:
        return {"end": _end_of(error), "why": _why(error), "ran_s": _since(began_s), **node}


async def read_log(node_id: str, job_id: str, offset: int) -> bytes:
    """Return what a job's log on its node holds from `offset` on; RayError when that node is gone."""
    options = {
        "name": f"heliostat:log:{job_id}",
        "num_cpus": 0,
        "max_retries": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False),
    }
    async with asyncio.timeout(READ_TIMEOUT_S):
        found: bytes = await _known(on_node.read_log).options(**options).remote(job_id, offset)
    return found


async def _launched(launch: Callable[[], Any]) -> Any:
    """Launch in a thread, as large arguments take their time; once under way it can't be taken back."""
    launching = asyncio.ensure_future(asyncio.to_thread(launch))
    try:
        return await asyncio.shield(launching)
    except asyncio.CancelledError:
        await _end(await launching)
        raise


async def _next(values: Any) -> dict[str, Any]:
    found: dict[str, Any] = await (await anext(values))
    return found


async def _end(values: Any) -> None:
    # The worker itself is ended: a keeper sees that at once, and a function may not heed anything less.
    await asyncio.shield(asyncio.to_thread(ray.cancel, values, force=True))


def _since(began_s: float | None) -> float:
    return 0.0 if began_s is None else time.monotonic() - began_s


def _end_of(error: Exception) -> str:
    return next((end for kind, end in ENDS if isinstance(error, kind)), "lost")


def _why(error: Exception) -> str:
    """Return Ray's words where they are the caller's to know; the owner has them all in the log."""
    log.warning("a call's task ended with %s: %s", type(error).__name__, error)
    if not isinstance(error, exceptions.RuntimeEnvSetupError):
        return ""
    lines = str(error).strip().splitlines()
    return on_node.FOLDERS_OF_PATH.sub("…/", lines[-1] if lines else "")[: on_node.MESSAGE_CHARS]
