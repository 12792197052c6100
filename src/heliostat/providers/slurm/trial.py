"""One small job of a node type, to see whether it starts and whether it and the head reach each other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from heliostat.model.instance import BackendState, LaunchRequest
from heliostat.ports.errors import ProviderError, Unavailable
from heliostat.providers.slurm.asking import listed, submitted
from heliostat.providers.slurm.jobs import Job
from heliostat.providers.slurm.logs import LOOK_BACK_LINES, log_path, tails, telling
from heliostat.providers.slurm.members import members_of
from heliostat.providers.slurm.options import job_options
from heliostat.providers.slurm.runner import Runner
from heliostat.providers.slurm.script import submission
from heliostat.providers.slurm.stopping import compressed
from heliostat.providers.slurm.submitting import Surroundings, asks

PROGRAM = Path(__file__).with_name("trial_on_node.py")
TRIAL_S = 60.0
POLL_FIRST_S, POLL_MOST_S = 2.0, 15.0
CALL_S = 5.0

Said = asyncio.Future[dict[str, Any]]
"""What the node says of itself, once it has come through."""


async def tried(
    request: LaunchRequest,
    around: Surroundings,
    runner: Runner,
    *,
    head_host: str,
    wait_s: float,
    now_s: float,
) -> tuple[bool, str]:
    """Submit a one-minute job; return whether all is well, and a sentence for people.

    Waits at most `wait_s`; whatever is left of the job is cancelled.
    """
    try:
        async with _listening(head_host) as (said, port, secret):
            start = {**request.start, "gcs_address": f"{head_host}:{port}", "secret": secret}
            whole = replace(request, count=1, together=False, start=start)
            surroundings = replace(around, bootstrap=PROGRAM.read_text(encoding="utf-8"))
            (ask,) = asks(whole, surroundings, now_s=now_s)
            options = job_options(around.options, request.node_type.options)
            made = submission(options, replace(ask, time_limit_s=TRIAL_S))
            try:
                job_id = await submitted(made, runner, around.options)
                return await _watched(job_id, said, around, runner, wait_s=wait_s, expected=request.start)
            finally:
                # Found by its launch, since sbatch may have acted without an answer.
                with contextlib.suppress(ProviderError):
                    await _cancel(request.launch_id, around, runner)
    except (ProviderError, OSError) as error:
        return False, str(error)


@contextlib.asynccontextmanager
async def _listening(host: str) -> AsyncIterator[tuple[Said, int, str]]:
    heard: Said = asyncio.get_running_loop().create_future()
    secret = secrets.token_hex(16)

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            said = json.loads(await asyncio.wait_for(reader.readline(), CALL_S))
            if said.get("secret") == secret and not heard.done():
                heard.set_result(said)
        except (ValueError, OSError, TimeoutError, AttributeError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(hear, host=host, port=0)
    async with server:
        yield heard, server.sockets[0].getsockname()[1], secret


async def _watched(
    job_id: int,
    said: Said,
    around: Surroundings,
    runner: Runner,
    *,
    wait_s: float,
    expected: Mapping[str, object],
) -> tuple[bool, str]:
    loop = asyncio.get_running_loop()
    until_s, words, pause_s = loop.time() + wait_s, "squeue does not list it", POLL_FIRST_S
    while (left_s := until_s - loop.time()) > 0:
        with contextlib.suppress(TimeoutError):
            here = await asyncio.wait_for(asyncio.shield(said), min(pause_s, left_s))
            return await _called_back(here, expected)
        pause_s = min(pause_s * 1.5, POLL_MOST_S)
        try:
            jobs = await _jobs(around, runner)
        except Unavailable as error:
            words = str(error)
            continue
        mine = members_of(one for one in jobs if one.array_id == job_id).chosen
        if not mine:
            continue
        member = next(iter(mine.values()))
        words = f"{member.state.value}: {member.detail}" if member.detail else member.state.value
        if member.state in (BackendState.ENDED, BackendState.FAILED):
            path = log_path(around.log_dir, member.job.tag, member.index)
            far = runner if around.options.ssh else None
            last = telling((await tails([path], LOOK_BACK_LINES, runner=far)).get(path, ()))
            told = ": ".join(filter(None, (words, last)))
            return False, f"job {job_id} on {member.job.nodes or 'no node'}: {told}"
    return False, f"job {job_id} did not start within {wait_s:.0f} s and was cancelled ({words})"


async def _cancel(launch_id: str, around: Surroundings, runner: Runner) -> None:
    mine = members_of(one for one in await _jobs(around, runner) if one.tag.launch_id == launch_id)
    living = [one for one in mine.chosen.values() if not one.is_over]
    if living:
        await runner.run(("scancel", *compressed(living)), deadline_s=around.options.command_deadline_s)


async def _jobs(around: Surroundings, runner: Runner) -> tuple[Job, ...]:
    return await listed(runner, around.options, cluster_uid=around.identity.cluster_uid)


async def _called_back(said: Mapping[str, Any], expected: Mapping[str, object]) -> tuple[bool, str]:
    where = f"{said['node']} ({said['node_ip']})"
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(said["node_ip"], said["port"]), CALL_S)
        writer.close()
    except (OSError, TimeoutError) as error:
        return False, f"{where} reaches this host, but not the other way round: {str(error) or 'no answer'}"
    for key in ("python_version", "ray_version"):
        if said[key] != expected.get(key):
            name = key.partition("_")[0].title()
            return False, f"{where} has {name} {said[key]}, the head {expected.get(key)}: they must be equal"
    versions = f"Python {said['python_version']}, Ray {said['ray_version']}"
    return True, f"{where} and this host reach each other; {versions}"
