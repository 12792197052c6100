"""One small job of a node type, to see whether it starts and whether it and the head reach each other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from heliostat.model.instance import BackendState, LaunchRequest
from heliostat.ports.errors import ProviderError, Unavailable
from heliostat.providers.slurm.arguments import time_limit_s
from heliostat.providers.slurm.asking import looked, submitted
from heliostat.providers.slurm.jobs import Listing
from heliostat.providers.slurm.logs import LOOK_BACK_LINES, log_path, tails, telling
from heliostat.providers.slurm.members import Member, members_of
from heliostat.providers.slurm.options import job_options
from heliostat.providers.slurm.runner import Runner
from heliostat.providers.slurm.script import submission
from heliostat.providers.slurm.stopping import compressed
from heliostat.providers.slurm.submitting import Surroundings, asks
from heliostat.providers.slurm.untagged import WHY

PROGRAM = Path(__file__).with_name("trial_on_node.py")
TRIAL_S = 60.0
ENV_TRIAL_S = 1800.0
"""An environment that is not there yet is made by the trial's job, and stays for the workers."""
RUNS_OVER_S = 90.0
"""So long after its time limit a job that runs is waited for: Slurm ends it up to a minute late."""
POLL_FIRST_S, POLL_MOST_S = 2.0, 15.0
CALL_S = 5.0

Said = asyncio.Future[dict[str, Any]]
"""What the node says of itself, once it has come through."""


@dataclass(frozen=True)
class Watch:
    """A submitted trial: `wait_s` is for the queue, `limit_s` how long it may run, `said` what it says."""

    job_id: int
    said: Said
    around: Surroundings
    runner: Runner
    wait_s: float
    limit_s: float
    expected: Mapping[str, object]


async def tried(
    request: LaunchRequest,
    around: Surroundings,
    runner: Runner,
    *,
    head_host: str,
    wait_s: float,
    longest_s: float,
) -> tuple[bool, str]:
    """Submit a one-minute job; return whether all is well, and a sentence for people.

    It has longer where it may have to make the type's environment, as far as its partition lets it
    (`longest_s`). The queue is waited for at most `wait_s`; whatever is left of the job is cancelled.
    """
    try:
        async with _listening(head_host) as (said, port, secret):
            start = {**request.start, "gcs_address": f"{head_host}:{port}", "secret": secret}
            whole = replace(request, count=1, together=False, start=start)
            surroundings = replace(around, bootstrap=PROGRAM.read_text(encoding="utf-8"))
            # No lease of a head's counts here: the job has a limit of its own.
            (ask,) = asks(whole, surroundings, now_s=0.0)
            options = job_options(around.options, request.node_type.options)
            trial_s = TRIAL_S if options.env is None else max(TRIAL_S, min(ENV_TRIAL_S, longest_s))
            ask = replace(ask, time_limit_s=trial_s)
            limit_s = time_limit_s(options, ask) or TRIAL_S
            job_id: int | None = None
            try:
                job_id = await submitted(submission(options, ask), runner, around.options)
                return await _watched(Watch(job_id, said, around, runner, wait_s, limit_s, request.start))
            finally:
                await _cancel(request.launch_id, around, runner, job_id=job_id)
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


async def _watched(watch: Watch) -> tuple[bool, str]:
    """Wait for what the job says, or for its end. Once it runs, the queue's time counts no more."""
    loop = asyncio.get_running_loop()
    until_s, words, pause_s = loop.time() + watch.wait_s, "squeue does not list it", POLL_FIRST_S
    runs = False
    while (left_s := until_s - loop.time()) > 0:
        with contextlib.suppress(TimeoutError):
            here = await asyncio.wait_for(asyncio.shield(watch.said), min(pause_s, left_s))
            return await _known_again(watch) or await _called_back(here, watch.expected)
        pause_s = min(pause_s * 1.5, POLL_MOST_S)
        try:
            listing = await _listing_of(watch)
        except Unavailable as error:
            words = str(error)
            continue
        if watch.job_id in listing.others:
            return await _stray(watch)
        mine = members_of(one for one in listing.jobs if one.array_id == watch.job_id).chosen
        if not mine:
            continue
        member = next(iter(mine.values()))
        words = f"{member.state.value}: {member.detail}" if member.detail else member.state.value
        if member.is_over:
            return False, await _last_words(watch, member, words)
        if member.state is BackendState.RUNNING and not runs:
            runs, until_s = True, loop.time() + watch.limit_s + RUNS_OVER_S
    what, within_s = ("end", watch.limit_s) if runs else ("start", watch.wait_s)
    return False, f"job {watch.job_id} did not {what} within {within_s:.0f} s and was cancelled ({words})"


async def _known_again(watch: Watch) -> tuple[bool, str] | None:
    """Return what is wrong if a job that works well can't be told from others; None if it can."""
    with contextlib.suppress(Unavailable):
        if watch.job_id in (await _listing_of(watch)).others:
            return await _stray(watch)
    return None


async def _stray(watch: Watch) -> tuple[bool, str]:
    deadline_s = watch.around.options.command_deadline_s
    await watch.runner.run(("scancel", str(watch.job_id)), deadline_s=deadline_s)
    return False, f"job {watch.job_id} was cancelled: {WHY}"


async def _last_words(watch: Watch, member: Member, words: str) -> str:
    path = log_path(watch.around.log_dir, member.job.tag, member.index)
    far = watch.runner if watch.around.options.ssh else None
    last = telling((await tails([path], LOOK_BACK_LINES, runner=far)).get(path, ()))
    told = ": ".join(filter(None, (words, last)))
    return f"job {watch.job_id} on {member.job.nodes or 'no node'}: {told}"


async def _listing_of(watch: Watch) -> Listing:
    uid = watch.around.identity.cluster_uid
    return await looked(watch.runner, watch.around.options, cluster_uid=uid)


async def _cancel(launch_id: str, around: Surroundings, runner: Runner, *, job_id: int | None) -> None:
    """Cancel what is left of a trial, found by its launch, since sbatch may have acted without an answer.

    `job_id` is what it answered: all that tells of a job whose tag the site took away.
    """
    with contextlib.suppress(ProviderError):
        ids = [] if job_id is None else [str(job_id)]
        with contextlib.suppress(ProviderError):
            listing = await looked(runner, around.options, cluster_uid=around.identity.cluster_uid)
            mine = members_of(one for one in listing.jobs if one.tag.launch_id == launch_id)
            living = compressed(one for one in mine.chosen.values() if not one.is_over)
            ids = [*living, *(ids if job_id in listing.others else ())]
        if ids:
            await runner.run(("scancel", *ids), deadline_s=around.options.command_deadline_s)


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
