"""What the services need of the other parts of the gateway: who may do what, and how the cluster is.

Small Protocols and their values; whoever puts the gateway together gives the real ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from heliostat.gateway.caller import Caller
from heliostat.gateway.work.port import Done, Needs
from heliostat.model.gateway import CallLimits, Right

Context = Mapping[str, Any]
"""What the Hypha server says of a call: `user` is verified, of the rest only `ws` and `from` count."""


@dataclass(frozen=True)
class Ask:
    """What a caller wants. `right` None: any right will do. Only an ask with `needs` takes a slot.

    `published` names an owner's function. `payload_bytes` is what came with the call.
    """

    call_id: str
    function: str
    right: Right | None = None
    published: str | None = None
    payload_bytes: int = 0
    needs: Needs | None = None
    script: str | None = None


class Admitted(Protocol):
    """A call that may go on, until the block of `admit` ends. `needs` are the ask's, within its limits."""

    @property
    def caller(self) -> Caller: ...

    @property
    def limits(self) -> CallLimits: ...

    @property
    def needs(self) -> Needs | None: ...

    @property
    def waits(self) -> bool:
        """Say whether it was last said to wait for a node."""
        ...

    def say(self, line: str) -> None:
        """Keep a line on how the call gets on, for who looks at it."""
        ...

    def starts(self) -> None:
        """Take down that it is seen to run; said again, it changes nothing."""
        ...

    def ran_s(self, until_s: float | None = None) -> float:
        """Return the seconds since it began, or was last said to wait, until then, Unix time; None is now."""
        ...

    def leave(self) -> None:
        """Take down that it goes on without this gateway, and has not ended when the block does."""
        ...

    def cost(self, done: Done) -> None:
        """Take down what it has used; without it, it has used nothing."""
        ...


class Rules(Protocol):
    """Who may do what. It looks at the verified context of each call, its expiry included."""

    def admit(self, context: Context, ask: Ask) -> AbstractAsyncContextManager[Admitted]:
        """Let a call in for as long as the block runs; raises `CallError` where it may not go on.

        How the block ends is the call's outcome: a `CallError`, a cancellation, or well. Where somebody ends
        the call, the block is cancelled, and `CallError` comes out of it.
        """
        ...

    def screen(self, context: Context, ask: Ask) -> None:
        """Raise `CallError` where `admit` would refuse it, whatever came with it. Nothing is taken up."""
        ...

    def recheck(self, context: Context, right: Right) -> None:
        """Raise `CallError` where a caller who was let in would not be let in now; nothing is written."""
        ...

    def left(self) -> Sequence[str]:
        """Return the ids of the jobs that an earlier gateway has left running."""
        ...

    def resume(self, call_id: str) -> AbstractAsyncContextManager[Admitted]:
        """Go on with one of them, once, as with a call that was let in."""
        ...

    def may_call(self, caller: Caller, function: str) -> bool: ...

    def stop(self, call_id: str, why: str) -> bool:
        """End a call that was let in; `why` is told to its caller. Say whether there was such a call."""
        ...

    def calls(self, caller: Caller | None) -> Sequence[Mapping[str, Any]]:
        """Return a caller's calls in plain values, None is everybody's: those in flight and the last done.

        Each has a `call_id` and an `outcome`, which is empty until it ends.
        """
        ...


class Cluster(Protocol):
    """The cluster as its controller tells it."""

    async def status(self) -> Mapping[str, Any]:
        """Return nodes, queue and demand in plain values; raises `CallError`."""
        ...

    async def has_gpus(self) -> bool:
        """Say whether any node type has a GPU: a call that asks for nothing then gets one."""
        ...
