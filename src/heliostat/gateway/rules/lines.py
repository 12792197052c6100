"""What the audit log says of a call: one line as it begins, one as it ends. Pure.

Whatever costs nothing (a question, a refusal) has a line of its own kind, which may stand for several.
"""

from __future__ import annotations

import hashlib
from typing import Any

from heliostat.gateway.caller import Caller
from heliostat.gateway.rules.calls import Ask, Call
from heliostat.gateway.rules.repeats import Kind
from heliostat.gateway.work.port import Done, Needs

MESSAGE_CHARS_MAX = 500
UNKNOWN = "unknown"
ANONYMOUS = "anonymous"

Line = dict[str, Any]


def begun(caller: Caller, ask: Ask, *, needs: Needs, now_s: float) -> Line:
    """Return the first line of a call: who wants what."""
    return {
        "at_s": now_s,
        "event": "begun",
        "call_id": ask.call_id,
        "who": caller.name,
        "account": caller.account,
        "caller_id": caller.id,
        "parent": caller.parent,
        "workspace": caller.workspace,
        "function": ask.function,
        "published": ask.published,
        "cpus": needs.cpus,
        "gpus": needs.gpus,
        "memory_bytes": needs.memory_bytes,
        "timeout_s": needs.timeout_s,
        "payload_bytes": ask.payload_bytes,
        "script_sha256": None if ask.script is None else digest(ask.script),
    }


def digest(script: str) -> str:
    """Return a script's SHA-256, in hexadecimal."""
    return hashlib.sha256(script.encode()).hexdigest()


def running(caller: Caller, ask: Ask, *, now_s: float) -> Line:
    """Return the line of a call that has its node, which a gateway that is started later counts from."""
    return {
        "at_s": now_s,
        "event": "running",
        "call_id": ask.call_id,
        "who": caller.name,
        "account": caller.account,
        "function": ask.function,
    }


def ended(call: Call, message: str, *, ran_s: float | None, done: Done | None) -> Line:
    """Return the last line of a call, which says all that matters without the first one."""
    assert call.ended_at_s is not None
    return {
        "at_s": call.ended_at_s,
        "event": "ended",
        "call_id": call.call_id,
        "who": call.who,
        "account": call.account,
        "function": call.function,
        "published": call.published,
        "outcome": call.outcome,
        "message": message[:MESSAGE_CHARS_MAX] or None,
        "began_at_s": call.since_s,
        "took_s": round(max(0.0, call.ended_at_s - call.since_s), 3),
        "ran_s": None if ran_s is None else round(ran_s, 3),
        "gpu_s": round(call.gpu_s, 3),
        "node_id": None if done is None else done.node_id,
    }


def never_ran(caller: Caller, ask: Ask, outcome: str, *, now_s: float) -> Line:
    """Return the last line of a call that was written and never begun."""
    return {
        "at_s": now_s,
        "event": "ended",
        "call_id": ask.call_id,
        "who": caller.name,
        "account": caller.account,
        "function": ask.function,
        "published": ask.published,
        "outcome": outcome,
        "took_s": 0.0,
        "gpu_s": 0.0,
    }


def kind_of(caller: Caller | None, ask: Ask, outcome: str) -> Kind:
    """Return what makes small things the same. Whoever has not signed in has another id each time."""
    if caller is None or caller.is_anonymous:
        who = UNKNOWN if caller is None else ANONYMOUS
        return Kind(who, who, "", ask.function, outcome)
    return Kind(caller.name, caller.account, caller.workspace, ask.function, outcome)


def small(kind: Kind, times: int, *, now_s: float) -> Line:
    event = "asked" if kind.outcome == "ok" else "refused"
    return {"at_s": now_s, "event": event, **kind._asdict(), "times": times}
