"""What a gateway knows of the one before it: read back from the audit log. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from heliostat.gateway.caller import Caller
from heliostat.gateway.errors import Code
from heliostat.gateway.work.port import Needs
from heliostat.model.gateway import Right

GOES_ON = "submit"
"""The function whose work a gateway that ends does not take with it: Ray's jobs."""


@dataclass(frozen=True)
class Begun:
    """A call of some cost as the log has it, and `Ask` of it anew.

    `ran_from_s` is when it was first seen to run, None: nobody knows that it did.
    """

    call_id: str
    who: str
    account: str
    caller_id: str
    parent: str | None
    workspace: str
    function: str
    published: str | None
    began_at_s: float
    needs: Needs
    ran_from_s: float | None = None
    right: Right | None = None
    payload_bytes: int = 0
    script: str | None = None

    @property
    def caller(self) -> Caller:
        """Return whose it is; what they may do stands in no log."""
        return Caller(
            id=self.caller_id,
            email=None if self.who == self.caller_id else self.who,
            roles=frozenset(),
            workspace=self.workspace,
            permission=None,
            parent=self.parent,
            expires_at_s=None,
            is_anonymous=False,
        )


@dataclass
class History:
    """`spent` holds (account, GPU seconds, Unix time of the end) of all calls that ended."""

    spent: list[tuple[str, float, float]] = field(default_factory=list)
    unfinished: dict[str, Begun] = field(default_factory=dict)


def read_back(lines: Iterable[Mapping[str, Any]]) -> History:
    """Return what the log holds; a line that lacks what its kind must have is passed over."""
    history = History()
    for line in lines:
        try:
            _take(history, line)
        except (KeyError, TypeError, ValueError):
            continue
    return history


def _take(history: History, line: Mapping[str, Any]) -> None:
    event = line.get("event")
    if event == "begun":
        history.unfinished[str(line["call_id"])] = _begun(line)
    elif event == "running" and line["call_id"] in history.unfinished:
        call_id = str(line["call_id"])
        history.unfinished[call_id] = replace(history.unfinished[call_id], ran_from_s=float(line["at_s"]))
    elif event == "ended":
        history.unfinished.pop(str(line["call_id"]), None)
        history.spent.append((str(line["account"]), float(line["gpu_s"]), float(line["at_s"])))


def _begun(line: Mapping[str, Any]) -> Begun:
    memory_bytes = line.get("memory_bytes")
    return Begun(
        call_id=str(line["call_id"]),
        who=str(line["who"]),
        account=str(line["account"]),
        caller_id=str(line["caller_id"]),
        parent=line.get("parent"),
        workspace=str(line["workspace"]),
        function=str(line["function"]),
        published=line.get("published"),
        began_at_s=float(line["at_s"]),
        needs=Needs(
            cpus=float(line["cpus"]),
            gpus=float(line["gpus"]),
            memory_bytes=None if memory_bytes is None else int(memory_bytes),
            timeout_s=float(line["timeout_s"]),
        ),
    )


def lost_line(one: Begun, *, now_s: float) -> dict[str, Any]:
    """Return the last line of a call during which the gateway was killed.

    Nobody saw its end: it is charged until now, as long as it may have run at most.
    """
    took_s = max(0.0, now_s - one.began_at_s)
    return {
        "at_s": now_s,
        "event": "ended",
        "call_id": one.call_id,
        "who": one.who,
        "account": one.account,
        "function": one.function,
        "published": one.published,
        "outcome": Code.LOST.value,
        "message": "the gateway ended while it ran",
        "began_at_s": one.began_at_s,
        "took_s": took_s,
        "gpu_s": one.needs.gpus * min(took_s, one.needs.timeout_s),
    }
