"""The Slurm provider: Ray worker nodes as jobs of a batch system."""

from __future__ import annotations

import asyncio
import math
import os
import shlex
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from heliostat.model.instance import BackendInstance, Change, LaunchRequest, Offer, OfferQuery, Role
from heliostat.model.node_type import NodeType
from heliostat.ports.errors import InvalidRequest, ProviderError, Unavailable
from heliostat.ports.provider import Outcome, ProviderContext
from heliostat.providers.slurm.arguments import NOTICE_PART
from heliostat.providers.slurm.asking import looked
from heliostat.providers.slurm.endings import Endings
from heliostat.providers.slurm.ends import Asking, Ends
from heliostat.providers.slurm.logs import tails, tidy
from heliostat.providers.slurm.members import Member, Members, members_of, row_of
from heliostat.providers.slurm.offering import Offering
from heliostat.providers.slurm.options import JobOptions, SlurmOptions, job_options, parse_section
from heliostat.providers.slurm.refusals import trouble
from heliostat.providers.slurm.runner import LocalRunner, Runner, SshRunner
from heliostat.providers.slurm.script import submission
from heliostat.providers.slurm.site import Site, longest_s, probe, problems, usual_s
from heliostat.providers.slurm.slurm_time import SlurmTime
from heliostat.providers.slurm.stopping import Order
from heliostat.providers.slurm.submitting import SUBMITTED_AT_ONCE, Submitted, Surroundings, asks, submit
from heliostat.providers.slurm.trial import tried
from heliostat.providers.slurm.untagged import Untagged

BOOTSTRAP_SHOWN = "(here comes the text of heliostat/node/bootstrap.py)\n"

SITE_S, SITE_AGAIN_S = 600.0, 30.0
"""How old what is known of the site may be, and how old before something is refused because of it. What
another look did not cure is looked at again only after twice as long."""

LAUNCHES_KEPT = 10_000
"""So many launches are known as submitted already after squeue has forgotten them."""

TIDY_EVERY_S = 86_400.0
MESSAGE_TIMEOUT_S = 10.0
"""Slurm's default (slurm.conf, MessageTimeout)."""

OWN_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")
"""What a job gets of our own environment: how the token is found. It is a path, never the token."""

Found = TypeVar("Found")

log = structlog.get_logger(__name__)


class SlurmProvider:
    """See ports.provider.Provider; also Delayed, Recall, Diagnose, Probe, Preview and Rehearse.

    One piece of work at a time and always to its end: a caller that is cancelled leaves no `sbatch`
    behind of which nobody knows whether it acted.
    """

    name: Final = "slurm"

    def __init__(
        self,
        context: ProviderContext,
        *,
        runner: Runner | None = None,
        environment: Mapping[str, str] = os.environ,
        now_s: Callable[[], float] | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._options = parse_section(context.options)
        self._runner = runner or _runner(self._options, context, environment)
        self._now_s, self._monotonic_s = now_s or context.now_s or time.time, monotonic_s
        self._slurm_time = SlurmTime(self._now_s, now_s or time.time, elsewhere=self._options.ssh is not None)
        self._log_dir = context.log_dir
        if self._options.work_dir is not None:
            # Clusters may share it, and none is to tidy up another's.
            self._log_dir = f"{self._options.work_dir}/logs/{context.identity.cluster_name}"
        self._own = {name: environment[name] for name in OWN_VARIABLES if name in environment}
        self._log_runner = self._runner if self._options.ssh else None
        self._ends = Ends(self._log_dir, log_runner=self._log_runner)
        self._offering = Offering(
            self._options, self._runner, self._surroundings, slurm_time=self._slurm_time
        )
        self._jobs: dict[str, JobOptions] = {}
        self._site: Site | None = None
        self._site_s = 0.0
        self._again_s: dict[str, float] = {}
        self._known: Members | None = None
        self._tidied_s = -math.inf
        self._launched: dict[str, None] = {}
        self._untagged = Untagged()
        self._endings = Endings(Path(context.runtime_dir), self._command, monotonic_s)
        self._ready = False
        self._turn, self._probing = asyncio.Lock(), asyncio.Lock()
        self._submitting = asyncio.Semaphore(SUBMITTED_AT_ONCE)
        self._listing: asyncio.Future[list[BackendInstance]] | None = None
        self._works: set[asyncio.Future[Any]] = set()

    # The port.

    async def offers(self, queries: Sequence[OfferQuery]) -> Sequence[Offer]:
        return await self._work(lambda: self._offers(queries))

    async def apply(self, change: Change) -> Outcome:
        return await self._work(lambda: self._apply(change))

    async def instances(self) -> Sequence[BackendInstance]:
        """List; who comes while another's listing still waits for its turn gets that one.

        Else those that gave up waiting for a silent slurmctld would pile up behind one another.
        """
        if self._listing is None or self._listing.done():
            self._listing = asyncio.ensure_future(self._work(self._list))
            self._listing.add_done_callback(self._forget)
        return await asyncio.shield(self._listing)

    async def aclose(self) -> None:
        """Let go of connections; jobs go on, and the next provider finds them."""
        await asyncio.gather(*self._works, return_exceptions=True)
        await self._runner.aclose()

    # Delayed, Recall, Diagnose and Probe.

    @property
    def message_timeout_s(self) -> float:
        """Return the site's MessageTimeout; Slurm's default until the site has been looked at."""
        return self._site.message_timeout_s if self._site else MESSAGE_TIMEOUT_S

    def recall(self, wanted: Mapping[str, float]) -> None:
        self._ends.recall(wanted)

    async def last_words(self, instance_id: str, *, lines: int = 20) -> Sequence[str]:
        paths = self._ends.logs_of(instance_id)
        found = await tails(paths, lines, runner=self._log_runner)
        return next((found[path] for path in paths if found.get(path)), ())

    def complete(self, node_type: NodeType) -> NodeType:
        self._jobs[node_type.name] = job_options(self._options, node_type.options)
        # The file has been read, perhaps for `heliostat apply`: what spoke against the type may be mended.
        self._site = None
        self._untagged.trust(node_type.name)
        return replace(node_type, throttles=True)

    async def check(self, node_types: Sequence[NodeType]) -> Sequence[str]:
        try:
            jobs = {one.name: job_options(self._options, one.options) for one in node_types}
            return problems(node_types, jobs, await self._known_site())
        except ProviderError as error:
            return [str(error)]

    def preview(self, request: LaunchRequest) -> str:
        around = self._around(BOOTSTRAP_SHOWN)
        options = job_options(self._options, request.node_type.options)
        shown = [submission(options, ask) for ask in asks(request, around, now_s=self._now_s())]
        return "\n".join(f"{shlex.join(one.argv)} <<'SCRIPT'\n{one.script}SCRIPT" for one in shown)

    async def rehearse(self, request: LaunchRequest, *, head_host: str, wait_s: float) -> tuple[bool, str]:
        if wrong := await self._wrong(request.node_type):
            return False, wrong
        around = await self._surroundings(request.node_type)
        job = job_options(self._options, request.node_type.options)
        most_s = longest_s(job, await self._known_site())
        return await tried(
            request, around, self._runner, head_host=head_host, wait_s=wait_s, longest_s=most_s
        )

    # One piece of work at a time.

    async def _work(self, work: Callable[[], Awaitable[Found]]) -> Found:
        """Do a piece of work; a caller that is cancelled does not wait for its end."""
        return await asyncio.shield(self._begin(self._in_turn(work)))

    def _begin(self, work: Coroutine[Any, Any, Found]) -> asyncio.Future[Found]:
        piece = asyncio.ensure_future(work)
        self._works.add(piece)
        piece.add_done_callback(self._forget)
        return piece

    async def _in_turn(self, work: Callable[[], Awaitable[Found]]) -> Found:
        async with self._turn:
            return await work()

    def _forget(self, piece: asyncio.Future[Any]) -> None:
        self._works.discard(piece)
        if not piece.cancelled():
            piece.exception()  # Nobody may be left to hear it.

    async def _command(self, command: Sequence[str]) -> str:
        """Run one of Slurm's commands; return what it printed. Raises what its refusal means."""
        answer = await self._runner.run(command, deadline_s=self._options.command_deadline_s)
        if (wrong := trouble(command, answer.code, answer.stderr)) is not None:
            raise wrong
        return answer.stdout

    # Listing.

    async def _list(self) -> list[BackendInstance]:
        self._listing = None  # Who asks from now on must not get an answer that began before.
        asked = set(self._endings.asked)
        members = await self._look()
        gone = await self._ends.rows(members.chosen, terminated=asked, asking=self._asking())
        self._endings.keep(members)
        try:
            await self._end(members)
        except ProviderError:
            log.warning("what should end could not be told; it is tried again", backend=self.name)
        self._tidy_up(members)
        # What was terminated and is over stays in squeue for minutes, and nowhere else.
        left = {key for key in asked & members.chosen.keys() if self._endings.has_left(members.chosen[key])}
        shown = [one for one in members.chosen.values() if one.instance_id not in left]
        stray = self._untagged.rows(terminated=asked)
        return await self._ends.worded([*(self._row(one) for one in shown), *gone, *stray])

    def _tidy_up(self, members: Members) -> None:
        """Remove old logs, rarely, and beside all else: nobody waits for it."""
        if (now_s := self._monotonic_s()) - self._tidied_s < TIDY_EVERY_S:
            return
        self._tidied_s = now_s
        living = {one.job.tag.launch_id for one in members.chosen.values() if not one.is_over}
        self._begin(tidy(self._log_dir, self._runner, living=living, now_s=self._now_s()))

    def _asking(self) -> Asking:
        return Asking(
            self._runner,
            deadline_s=self._options.command_deadline_s,
            cluster_uid=self._context.identity.cluster_uid,
            user=self._options.user,
            now_s=self._now_s(),
        )

    async def _look(self) -> Members:
        """Return what squeue has of this cluster, and learn from it; nobody is told anything."""
        uid = self._context.identity.cluster_uid
        listing = await looked(self._runner, self._options, cluster_uid=uid)
        self._slurm_time.saw(listing.now_s)
        jobs = [job.moved(-self._slurm_time.ahead_s) for job in listing.jobs]
        self._known = members_of(jobs)
        self._untagged.saw(listing)
        self._remember(job.tag.launch_id for job in jobs)
        self._offering.outlook.saw(jobs, now_s=self._now_s())
        return self._known

    def _remember(self, launch_ids: Iterable[str]) -> None:
        new = dict.fromkeys(launch_ids)
        older = [one for one in self._launched if one not in new]
        self._launched = dict.fromkeys(older[-LAUNCHES_KEPT:]) | new

    def _row(self, member: Member) -> BackendInstance:
        job = self._jobs.get(member.job.tag.node_type)
        lease_s = member.job.time_limit_s or math.inf
        notice_s = min(job.drain_notice_s, lease_s * NOTICE_PART) if job else None
        return row_of(member, stopping=member.instance_id in self._endings.asked, notice_s=notice_s)

    # Ending.

    async def _end(self, members: Members) -> None:
        stray = sorted(self._untagged.stray)
        also = [Order(("scancel", *map(str, stray)), ())] if stray else []
        await self._endings.carry_out(members, also=also)
        self._untagged.cancelled(stray)

    async def _terminate(self, instance_ids: Sequence[str]) -> dict[str, ProviderError]:
        if not instance_ids:
            return {}
        try:
            self._endings.ask(instance_ids)
            await self._end(self._known or await self._look())
        except ProviderError as error:
            return dict.fromkeys(instance_ids, error)
        return {}

    # Launching.

    async def _apply(self, change: Change) -> Outcome:
        terminations = await self._terminate(change.terminate)
        await self._let_go(change.unthrottle)
        new = [request for request in change.launch if request.launch_id not in self._launched]
        if new and self._known is None:
            # A controller before us may have asked for them: its jobs carry their launches' names.
            try:
                await self._look()
            except ProviderError as error:
                return Outcome({one.launch_id: error for one in new}, {}, terminations)
        new = list({one.launch_id: one for one in new if one.launch_id not in self._launched}.values())
        found = await asyncio.gather(*(self._launch(request) for request in new))
        launches: dict[str, ProviderError] = {}
        members: dict[str, ProviderError] = {}
        for request, submitted in zip(new, found, strict=True):
            if submitted.failed.keys() >= set(request.instance_ids):
                launches[request.launch_id] = submitted.failed[request.instance_ids[0]]
            else:
                members.update(submitted.failed)
        return Outcome(launches, members, terminations)

    async def _launch(self, request: LaunchRequest) -> Submitted:
        try:
            if request.role is not Role.WORKER:
                raise InvalidRequest("this starts workers; `heliostat up` submits a head")
            if wrong := await self._wrong(request.node_type):
                raise InvalidRequest(wrong)
            around = await self._surroundings(request.node_type)
        except ProviderError as error:
            return Submitted(failed=dict.fromkeys(request.instance_ids, error))
        submitted = await submit(request, around, self._runner, turn=self._submitting, now_s=self._now_s())
        if submitted.jobs or any(isinstance(one, Unavailable) for one in submitted.failed.values()):
            # What did not answer may have acted: it is not asked again, the listing tells.
            self._remember([request.launch_id])
        self._untagged.took(submitted.jobs)
        return submitted

    async def _let_go(self, node_types: Sequence[str]) -> None:
        """Lift the throttle of all arrays of these types. What fails is asked again."""
        members = self._known.chosen.values() if self._known else ()
        mine = (one.job for one in members if one.job.tag.node_type in node_types)
        held = {job.array_id for job in mine if job.is_throttled}
        for array_id in sorted(held):
            try:
                await self._command(("scontrol", "update", f"JobId={array_id}", "ArrayTaskThrottle=0"))
                log.info("array's throttle lifted", array=array_id)
            except ProviderError as error:
                log.warning("array's throttle not lifted", array=array_id, error=str(error))

    async def _surroundings(self, node_type: NodeType) -> Surroundings:
        site = await self._known_site()
        job = job_options(self._options, node_type.options)
        if not self._ready:
            await self._command(("mkdir", "-p", self._log_dir))
            self._ready = True
        bootstrap = Path(self._context.bootstrap_path).read_text(encoding="utf-8")
        return replace(
            self._around(bootstrap),
            kill_wait_s=site.kill_wait_s,
            max_array_size=site.max_array_size,
            usual_s=usual_s(job, site) if job.time_limit_s is None else math.inf,
        )

    def _around(self, bootstrap: str) -> Surroundings:
        """Return what is known without asking the site."""
        return Surroundings(
            identity=self._context.identity,
            options=self._options,
            log_dir=self._log_dir,
            bootstrap=bootstrap,
            environment=self._own,
            lease_end_s=self._context.lease_end_s(),
        )

    async def _known_site(self, *, newer_s: float = SITE_S) -> Site:
        """Return what this site is, looked for again when it was so long ago."""
        async with self._probing:
            now_s = self._monotonic_s()
            if self._site is None or now_s - self._site_s > newer_s:
                deadline_s, user = self._options.command_deadline_s, self._options.user
                self._site = await probe(self._runner, deadline_s=deadline_s, user=user)
                self._site_s = now_s
            return self._site

    async def _wrong(self, node_type: NodeType) -> str | None:
        """Return why no job of the type can ever start here, None if nothing speaks against it.

        Slurm takes many such jobs and lets them wait for ever (EnforcePartLimits=NO). The site may
        have changed: it is looked at again before a refusal.
        """
        if why := self._untagged.why(node_type.name):
            return why
        job = {node_type.name: job_options(self._options, node_type.options)}
        if not problems([node_type], job, await self._known_site(), for_ever=True):
            return None
        newer_s, before_s = self._again_s.get(node_type.name, SITE_AGAIN_S), self._site_s
        found = problems([node_type], job, await self._known_site(newer_s=newer_s), for_ever=True)
        if not found:
            self._again_s.pop(node_type.name, None)
            return None
        if self._site_s != before_s:
            self._again_s[node_type.name] = min(2 * newer_s, SITE_S)
        return found[0]

    # Offering.

    async def _offers(self, queries: Sequence[OfferQuery]) -> list[Offer]:
        return [await self._offer(one) for one in queries]

    async def _offer(self, query: OfferQuery) -> Offer:
        if wrong := await self._wrong(query.node_type):
            return Offer(query.node_type.name, 0, why=wrong)
        return await self._offering.offer(query, now_s=self._now_s())


def _runner(options: SlurmOptions, context: ProviderContext, environment: Mapping[str, str]) -> Runner:
    if options.ssh is None:
        return LocalRunner(environment)
    return SshRunner(options.ssh, runtime_dir=context.runtime_dir)


def create(context: ProviderContext) -> SlurmProvider:
    """Make the provider; starts and blocks nothing. InvalidRequest when the section is wrong."""
    return SlurmProvider(context)
