"""The provider port: a source of machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from heliostat.model.instance import BackendInstance, Change, LaunchRequest, Offer, OfferQuery
from heliostat.model.node_type import NodeType
from heliostat.ports.errors import ProviderError


@dataclass(frozen=True)
class Outcome:
    """What came of a `Change`.

    A launch id or instance id that is in neither map was accepted. A launch that failed
    in part reports the instance ids that failed, not the launch id.
    """

    failed_launches: Mapping[str, ProviderError] = field(default_factory=dict)
    failed_instances: Mapping[str, ProviderError] = field(default_factory=dict)
    failed_terminations: Mapping[str, ProviderError] = field(default_factory=dict)


@runtime_checkable
class Provider(Protocol):
    """One backend. Calls are serialised by the caller, each has a deadline and may be cancelled.

    `apply` is idempotent: a launch id seen before starts nothing again, an instance id
    that is not there terminates without error. Terminate means gently first: the
    bootstrap gets TERM, and is killed only when its grace time is over; `apply` does not
    wait for that. An instance that ended by itself stays in `instances()` as ENDED or
    FAILED with its last words until it is terminated. `instances` lists, fresh from the
    backend, all that carries this cluster's tags and nothing else, and raises
    `Unavailable` rather than list in part. No call raises anything but ProviderError.
    """

    @property
    def name(self) -> str: ...

    async def offers(self, queries: Sequence[OfferQuery]) -> Sequence[Offer]: ...

    async def apply(self, change: Change) -> Outcome: ...

    async def instances(self) -> Sequence[BackendInstance]: ...

    async def aclose(self) -> None: ...


@runtime_checkable
class Delayed(Protocol):
    """Optional: for how long may the backend act on a request that nobody waits for any more?"""

    @property
    def message_timeout_s(self) -> float:
        """Return it in seconds, as the backend's own limit for a message under way; the loop believes
        an absence only after twice that."""
        ...


@runtime_checkable
class Diagnose(Protocol):
    """Optional: why did an instance end?"""

    async def last_words(self, instance_id: str, *, lines: int = 20) -> Sequence[str]:
        """Return the last lines of the instance's log; empty when there is none."""
        ...


@runtime_checkable
class Probe(Protocol):
    """Optional: what does this site have?"""

    def complete(self, node_type: NodeType) -> NodeType:
        """Return the type with what the site adds to it (memory of this machine, …)."""
        ...

    async def check(self, node_types: Sequence[NodeType]) -> Sequence[str]:
        """Return what would go wrong with these types here, a sentence each, starting nothing."""
        ...


@runtime_checkable
class Preview(Protocol):
    """Optional: what would be asked of the backend, as people would read it there?"""

    def preview(self, request: LaunchRequest) -> str:
        """Return what a launch would submit, asking nothing of the backend; raises ProviderError."""
        ...


@runtime_checkable
class Rehearse(Protocol):
    """Optional: start something small for a moment, to see what no look at the site can tell."""

    async def rehearse(self, request: LaunchRequest, *, head_host: str, wait_s: float) -> tuple[bool, str]:
        """Return whether one of the type starts, and it and `head_host` (this host) reach each other,
        and a sentence for people. Nothing is left of it; a queue is waited for at most `wait_s`.
        """
        ...


@runtime_checkable
class Recall(Protocol):
    """Optional: tell how instances ended that nobody listed at their end, since no controller was there."""

    def recall(self, wanted: Mapping[str, float]) -> None:
        """Hear, ahead of the first listing, which instances a journal wants, and when each was asked for
        (Unix seconds). Those that have ended are listed so, as if they had been seen all the time.
        """
        ...


@dataclass(frozen=True)
class ClusterIdentity:
    """Whose instances they are: the tags that every backend carries."""

    cluster_name: str
    cluster_uid: str
    owner: str


@dataclass(frozen=True)
class ProviderContext:
    """What a provider is made with: `factory(context) -> Provider`, its entry point's signature.

    `options` is the backend's section of the file as plain JSON values; `runtime_dir` a
    folder on this host's own file system, `log_dir` where instances' logs go;
    `bootstrap_path` the bootstrap's file; `head_resources` what the head takes on this
    host, in Ray's names and units. `lease_end_s` returns when the head itself must go (Unix
    seconds; None: never), as it is known at that moment: nothing is to outlive it. `now_s` is the
    controller's clock, which goes on where this host's is set: all times that a provider gets or gives are
    of that one (None: there is no controller, and they are of this host's).
    """

    identity: ClusterIdentity
    options: Mapping[str, object]
    runtime_dir: str
    log_dir: str
    bootstrap_path: str
    head_resources: Mapping[str, float] = field(default_factory=dict)
    lease_end_s: Callable[[], float | None] = lambda: None
    now_s: Callable[[], float] | None = None
