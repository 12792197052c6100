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
from heliostat.providers.slurm.jobs import parse_squeue, parse_submitted, squeue_command
from heliostat.providers.slurm.logs import LOOK_BACK_LINES, log_path, tails, telling
from heliostat.providers.slurm.members import Member, members_of
from heliostat.providers.slurm.options import job_options
from heliostat.providers.slurm.refusals import refusal, trouble
from heliostat.providers.slurm.runner import Runner
from heliostat.providers.slurm.script import submission
from heliostat.providers.slurm.submitting import Surroundings, asks

PROGRAM = Path(__file__).with_name("trial_on_node.py")
TRIAL_S = 60.0
POLL_S = 1.0
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
            deadline_s = around.options.command_deadline_s
            answer = await runner.run(made.argv, stdin=made.script, deadline_s=deadline_s)
            if answer.code != 0:
                raise refusal(made.argv, answer.code, answer.stderr)
            job_id = parse_submitted(answer.stdout)
            try:
                return await _watched(job_id, said, around, runner, wait_s=wait_s, expected=request.start)
            finally:
                with contextlib.suppress(ProviderError):
                    await runner.run(("scancel", str(job_id)), deadline_s=deadline_s)
    except (ProviderError, OSError, ValueError) as error:
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
    until_s, words = loop.time() + wait_s, "squeue does not list it"
    while loop.time() < until_s:
        with contextlib.suppress(TimeoutError):
            return await _called_back(await asyncio.wait_for(asyncio.shield(said), POLL_S), expected)
        member = await _look(job_id, around, runner)
        if member is None:
            continue
        words = f"{member.state.value}: {member.detail}" if member.detail else member.state.value
        if member.state in (BackendState.ENDED, BackendState.FAILED):
            path = log_path(around.log_dir, member.job.tag, member.index)
            far = runner if around.options.ssh else None
            last = telling((await tails([path], LOOK_BACK_LINES, runner=far)).get(path, ()))
            return False, f"job {job_id} on {member.job.nodes or 'no node'}: {last or words}"
    return False, f"job {job_id} did not start within {wait_s:.0f} s and was cancelled ({words})"


async def _look(job_id: int, around: Surroundings, runner: Runner) -> Member | None:
    command = squeue_command(around.options.user)
    answer = await runner.run(command, deadline_s=around.options.command_deadline_s)
    if (wrong := trouble(command, answer.code, answer.stderr)) is not None:
        raise wrong
    try:
        jobs = parse_squeue(answer.stdout, cluster_uid=around.identity.cluster_uid)
    except ValueError as error:
        raise Unavailable(str(error)) from error
    mine = members_of(one for one in jobs if one.array_id == job_id)
    return next(iter(mine.chosen.values()), None)


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
