"""What a caller is told when a call fails: a code for programs, one sentence for people."""

from __future__ import annotations

from enum import Enum
from typing import Any

from heliostat.ports.errors import HeliostatError


class Code(Enum):
    """The kinds of error; their names are a promise to callers."""

    NOT_ALLOWED = "not_allowed"
    """The owner has not let the caller do this."""
    SIGN_IN = "sign_in"
    """The caller's token has expired, or does not hold for this workspace."""
    INVALID = "invalid"
    """The call's own arguments are wrong."""
    TOO_LARGE = "too_large"
    LIMIT = "limit"
    """Too many calls at a time, or the day's GPU seconds are used up."""
    TIMEOUT = "timeout"
    """It did not end within its time."""
    FAILED = "failed"
    """The caller's own code raised; the message is the exception's."""
    OUT_OF_MEMORY = "out_of_memory"
    LOST = "lost"
    """The worker, the head or the gateway went away while it ran. It may have had effects."""
    UNAVAILABLE = "unavailable"
    """The cluster does not answer, or the gateway is going down; nothing was begun."""
    STOPPED = "stopped"
    """Someone ended it: the caller, an administrator, or the owner."""
    UNKNOWN_JOB = "unknown_job"
    """There is no such job of the caller's."""
    INTERNAL = "internal"
    """A defect of the gateway's own; the owner's log has it under the call's id."""


class CallError(HeliostatError):
    """A call that ends without its value. `message` holds nothing of the owner's: no path, no traceback.

    `ran_s` and `gpu_s` are what it cost all the same, as in `Done`; 0 where it never ran.
    """

    def __init__(self, code: Code, message: str, *, ran_s: float = 0.0, gpu_s: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.ran_s = ran_s
        self.gpu_s = gpu_s

    def answer(self, call_id: str) -> dict[str, Any]:
        """Return what goes to the caller in place of a value."""
        return {"ok": False, "call_id": call_id, "error": {"code": self.code.value, "message": self.message}}
