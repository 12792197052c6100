"""What `check` finds out about a cluster file on this site, without starting anything."""

from __future__ import annotations

import asyncio
import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from heliostat.cli import files
from heliostat.cli.autoscaler import refuse_unusable_autoscaler
from heliostat.cli.backends import completed, make
from heliostat.cli.gcs_storage import refuse_unusable
from heliostat.cli.head import LOCAL, head_host
from heliostat.cli.system import RandomIds, owner
from heliostat.config.places import StatePlaces, ensure_private_dir, state_places, state_root
from heliostat.control.explain import deferred_facts, infeasible_facts
from heliostat.control.ray_words import RAY_DECIDES
from heliostat.control.start_document import launch_request, start_document
from heliostat.control.wiring import Identity
from heliostat.model.demand import Bundle, Demand
from heliostat.model.history import History
from heliostat.model.node_type import ClusterSpec, NodeType
from heliostat.model.plan import Launch, Plan
from heliostat.model.resources import Resources
from heliostat.model.snapshot import BackendView, RayState, Snapshot
from heliostat.node import BOOTSTRAP_PATH
from heliostat.planner import fold, plan
from heliostat.ports.errors import ConfigError, HeliostatError, StorageError
from heliostat.ports.provider import ClusterIdentity, Preview, Probe, Provider, ProviderContext, Rehearse

PROBE_TIMEOUT_S = 60.0
LATER = "(known at the start)"
TRIAL_NOW_S = 1.0


@dataclass(frozen=True)
class Trial:
    """The completed cluster, a sentence for each thing that would go wrong here, and per node type what
    its backend would be asked for one worker, where that can be read."""

    spec: ClusterSpec
    problems: list[str]
    previews: Mapping[str, str] = field(default_factory=dict)
    tried: Mapping[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        types = ", ".join(
            f"{one.name} ({one.min_workers}–{one.max_workers})" for one in self.spec.policy.node_types
        )
        who = "; Ray's own autoscaler decides" if self.spec.policy.ray_decides else ""
        head = self.spec.head_type.name
        return f"cluster {self.spec.name}: fine; head {head}, workers {types or 'none'}{who}"

    def documents(self) -> dict[str, dict[str, Any]]:
        """Return per node type what the bootstrap of a worker would be told."""
        return {
            one.name: start_document(one, spec=self.spec, identity=_identity(self.spec.name), session=LATER)
            for one in self.spec.policy.node_types
        }

    def plan_for(self, resources: Mapping[str, float], count: int) -> dict[str, Any]:
        """Return the first round's plan for `count` such tasks on an empty cluster.

        Where Ray's own autoscaler decides, `note` says so: the plan is not known here.
        """
        demands = (Demand(Bundle(Resources.of(resources)), count),) if count else ()
        backends = {name: BackendView(listed_at_s=TRIAL_NOW_S, fresh=True) for name in self.spec.backends}
        snapshot = Snapshot(TRIAL_NOW_S, RayState(1, "check", demands=demands), backends)
        note = {"note": RAY_DECIDES} if self.spec.policy.ray_decides else {}
        return _plain(plan(snapshot, fold(History(), snapshot, self.spec.policy), self.spec.policy)) | note


def examine(file: Path) -> Trial:
    """Check the file and this site. Raises ConfigError for a wrong file; takes PROBE_TIMEOUT_S at most."""
    spec = files.load(file)
    with tempfile.TemporaryDirectory(prefix="heliostat-") as folder:
        return asyncio.run(_examine(spec, folder))


def try_out(trial: Trial, *, wait_s: float, say: Callable[[str], None]) -> Trial:
    """Start something small of each node type, where a backend can; return the trial with what came of it.

    What did not work is a problem more. A queue is waited for at most `wait_s`, one type after another.
    """
    places = _places(trial.spec)
    ensure_private_dir(places.folder, uid=os.getuid())
    # On the file system that other machines see: logs of what is tried are read back from it.
    places.logs.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="heliostat-") as folder:
        return asyncio.run(_try_out(trial, folder, wait_s=wait_s, say=say))


async def _try_out(trial: Trial, folder: str, *, wait_s: float, say: Callable[[str], None]) -> Trial:
    spec, tried, problems = trial.spec, {}, list(trial.problems)
    providers = make(spec, lambda name: _context(spec, name, folder))
    host = head_host(spec)
    try:
        for one in _all_types(spec):
            provider: object = providers[one.backend]
            if isinstance(provider, Rehearse):
                say(f"{one.name}: starts something small, and waits up to {wait_s:.0f} s for it")
                request = launch_request(
                    RandomIds().launch_id(),
                    1,
                    node_type=one,
                    spec=spec,
                    identity=_identity(spec.name),
                    session="",
                )
                fine, words = await provider.rehearse(request, head_host=host, wait_s=wait_s)
                tried[one.name] = words
                problems += [] if fine else [f"{one.name}: {words}"]
    finally:
        for provider in providers.values():
            await provider.aclose()
    return replace(trial, problems=problems, tried=tried)


async def _examine(spec: ClusterSpec, folder: str) -> Trial:
    providers = make(spec, lambda name: _context(spec, name, folder))
    try:
        spec = completed(spec, providers)
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            problems = await _problems(spec, providers)
        previews = _previews(spec, providers)
    except TimeoutError as error:
        raise HeliostatError(f"the site did not answer within {PROBE_TIMEOUT_S:g} s") from error
    finally:
        for provider in providers.values():
            await provider.aclose()
    return Trial(spec, problems, previews)


async def _problems(spec: ClusterSpec, providers: Mapping[str, Provider]) -> list[str]:
    found = [*_of_head(spec), *_of_storage(spec), *_of_autoscaler(spec)]
    for name, provider in providers.items():
        probe: object = provider
        if isinstance(probe, Probe):
            mine = [one for one in _all_types(spec) if one.backend == name]
            found += await probe.check(mine)
    return found


def _all_types(spec: ClusterSpec) -> list[NodeType]:
    """Return the workers' types, and the head's where a backend starts it as well."""
    types = list(spec.policy.node_types)
    starts_head = spec.head_type.backend != LOCAL and spec.head_type.name not in {one.name for one in types}
    return [*([spec.head_type] if starts_head else []), *types]


def _of_head(spec: ClusterSpec) -> list[str]:
    """Return what keeps a head on this host from being reached by its workers, or from being submitted."""
    try:
        if spec.head_type.backend == LOCAL:
            head_host(spec)
        else:
            _head_preview(spec)
    except ConfigError as error:
        return error.problems
    except HeliostatError as error:
        return [f"{spec.head_type.name}: {error}"]
    return []


def _of_storage(spec: ClusterSpec) -> list[str]:
    """Return what keeps the head from keeping its state; a key is written and deleted to see it."""
    try:
        refuse_unusable(spec)
    except StorageError as error:
        return [f"provider.gcs_storage: {error}"]
    return []


def _of_autoscaler(spec: ClusterSpec) -> list[str]:
    """Return why Ray's own autoscaler can't be used, where the file wants it."""
    try:
        refuse_unusable_autoscaler(spec, os.environ)
    except ConfigError as error:
        return list(error.problems)
    except HeliostatError as error:
        return [str(error)]
    return []


def _head_preview(spec: ClusterSpec) -> str:
    # Loaded only where the head is a job.
    from heliostat.cli import queued_start

    return queued_start.preview(spec, _places(spec))


def _places(spec: ClusterSpec) -> StatePlaces:
    return state_places(state_root(os.environ, home=Path.home()), spec.name)


def _previews(spec: ClusterSpec, providers: Mapping[str, Provider]) -> dict[str, str]:
    found = {}
    if spec.head_type.backend != LOCAL and not _of_head(spec):
        found[f"head ({spec.head_type.name})"] = _head_preview(spec)
    for one in spec.policy.node_types:
        provider: object = providers[one.backend]
        if isinstance(provider, Preview):
            request = launch_request(
                "preview", 1, node_type=one, spec=spec, identity=_identity(spec.name), session=LATER
            )
            found[one.name] = provider.preview(request)
    return found


def _context(spec: ClusterSpec, backend: str, folder: str) -> ProviderContext:
    return ProviderContext(
        identity=ClusterIdentity(spec.name, "check", owner()),
        options=spec.backends[backend],
        runtime_dir=folder,
        log_dir=str(_places(spec).logs),
        bootstrap_path=str(BOOTSTRAP_PATH),
        head_resources=spec.head_type.resources.units(),
    )


def _identity(cluster_name: str) -> Identity:
    return Identity(
        cluster_name=cluster_name,
        cluster_uid=LATER,
        address=LATER,
        dashboard_url="",
        ray_version=version("ray"),
        python_version=".".join(platform.python_version_tuple()[:2]),
        pid=0,
    )


def _plain(made: Plan) -> dict[str, Any]:
    launches = [one for one in made.actions if isinstance(one, Launch)]
    return {
        "target": dict(made.target),
        "launches": [
            {"node_type": one.node_type, "count": one.count, "reason": one.reason.text} for one in launches
        ],
        "deferred": [deferred_facts(one) for one in made.deferred],
        "infeasible": [infeasible_facts(one) for one in made.infeasible],
    }
