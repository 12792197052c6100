"""How a piece of work ended on its node, as what its caller gets: a value, or a typed error. Pure.

An outcome is a plain object: `end` is one of `ENDS` or what has a value, `why` says more, `ran_s` is how long
it ran, `result` holds a parcel. Results come from strangers' scripts: they are opened, never trusted.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.work.parcel import Damaged, unpack
from heliostat.gateway.work.port import Done, Needs

ENDS: Mapping[str, tuple[Code, str]] = {
    "timeout": (Code.TIMEOUT, "it did not end within {timeout_s:g} s"),
    "memory": (Code.OUT_OF_MEMORY, "it took more than its {memory_text} of memory"),
    "lost": (Code.LOST, "the worker that ran it went away; it may have had effects"),
    "left": (Code.LOST, "the worker that ran it went away; it may have had effects"),
    "stopped": (Code.STOPPED, "it was stopped"),
    "no_node": (Code.UNAVAILABLE, "no node came for it in {wait_s:g} s; nothing was begun"),
    "runtime_env": (Code.FAILED, "its runtime_env can't be made: {why}"),
    "large": (Code.TOO_LARGE, "{why}"),
    "raised": (Code.FAILED, "{why}"),
    "unsendable": (Code.FAILED, "{why}"),
    "not_started": (Code.INTERNAL, "the sandbox can't be started on its node; the owner's log says why"),
    "defect": (Code.INTERNAL, "the gateway failed; the owner's log has it under the call's id"),
}
OF_SCRIPTS = {"raised": "raised", "memory": "memory", "large": "large", "unsendable": "unsendable"}
"""What a script's host tells of a failure, and the end that it is."""

SANDBOX_TOOLS = ("bwrap:", "FATAL:", "ERROR:")
"""How bubblewrap and apptainer begin to say that they have failed; a script's own words go nowhere."""

MESSAGE_CHARS = 2000
WAIT_FOR_NODE_S = 6 * 3600.0
"""As long as a busy queue may take; a caller who is gone ends the wait before."""


def done(outcome: Mapping[str, Any], needs: Needs, memory_bytes: int | None = None) -> Done:
    """Return what the work came to; raises CallError for one without a value."""
    ran_s = float(outcome.get("ran_s") or 0.0)
    end, why, value = _ended(outcome)
    if end in {"returned", "value"}:
        return Done(value, ran_s, ran_s * needs.gpus, outcome.get("node_id"))
    code, text = ENDS[end]
    words = text.format(
        why=why,
        timeout_s=needs.timeout_s,
        wait_s=WAIT_FOR_NODE_S,
        memory_text=size_text(memory_bytes or needs.memory_bytes),
    )
    raise CallError(code, words, ran_s=ran_s, gpu_s=ran_s * needs.gpus)


def size_text(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "share"
    return f"{size_bytes / 2**30:.3g} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.3g} MiB"


def _ended(outcome: Mapping[str, Any]) -> tuple[str, str, Any]:
    """Return the end, why, and the value if there is one."""
    end, why = str(outcome["end"]), str(outcome.get("why") or "")
    if end == "returned":
        return end, why, unpack(outcome["result"])
    if end == "ended":
        return _of_script(outcome, why)
    return (end, why, None) if end in ENDS else ("defect", why, None)


def _of_script(outcome: Mapping[str, Any], why: str) -> tuple[str, str, Any]:
    try:
        told = unpack(outcome["result"])
        if told["ok"] is True:
            return "value", "", told["value"]
        return OF_SCRIPTS[told["kind"]], str(told["message"])[:MESSAGE_CHARS], None
    except (Damaged, KeyError, TypeError, IndexError):
        pass
    if why.startswith(SANDBOX_TOOLS):
        return "not_started", why, None
    return "raised", _code_text(int(outcome.get("code") or 0)), None


def _code_text(code: int) -> str:
    """Say how the script's process ended that has left no result."""
    number = -code if code < 0 else code - 128
    if number in {one.value for one in signal.Signals}:
        return f"the script's process was ended by {signal.Signals(number).name}"
    return f"the script's process ended with exit code {code} and without a result"
