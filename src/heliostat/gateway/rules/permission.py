"""Whether a caller may do something, and within which limits. Pure; what no entry allows is refused.

A token that was made from another has its maker's e-mail address and roles, so these prove nothing of it:
it counts where it may act in the gateway's workspace, and not only look. Nor does that prove that its maker
wanted it so: the server lets whoever holds a token of a workspace's owner, one to read included, make one
with all rights there. So where callers bring code or end calls of others, it counts only where the entry
says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from heliostat.gateway.caller import Caller
from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.rules.identity import FULL
from heliostat.model.gateway import Allowance, CallLimits, Right


def permitted(
    allow: Sequence[Allowance], caller: Caller, right: Right, *, function: str | None = None, now_s: float
) -> CallLimits:
    """Return the limits of the first entry that gives the caller this right, and this function.

    Raises CallError: SIGN_IN where another token of the same person's would do, else NOT_ALLOWED.
    """
    _check_sign_in(caller, now_s)
    giving = [one for one in allow if _gives(one, right, function)]
    for one in giving:
        if _lets_in(one, caller, right):
            return one.limits
    raise _refusal(giving, caller, f"call {function}" if function else _DOING[right])


def rights_of(allow: Sequence[Allowance], caller: Caller, *, now_s: float) -> frozenset[Right]:
    """Return what the caller may do at all. Raises CallError where that is nothing."""
    found = entries_of(allow, caller, now_s=now_s)
    return frozenset(right for one in found for right in one.rights if _lets_in(one, caller, right))


def entries_of(allow: Sequence[Allowance], caller: Caller, *, now_s: float) -> Sequence[Allowance]:
    """Return the entries that let the caller in, one at least. Raises CallError where none does."""
    _check_sign_in(caller, now_s)
    found = [one for one in allow if any(_lets_in(one, caller, right) for right in one.rights)]
    if not found:
        raise _refusal(allow, caller, "use this gateway")
    return found


SIGNED_IN = frozenset({Right.RUN, Right.ADMIN})
"""What a token that was made from another gets only where the entry has `tokens`."""

_DOING = {
    Right.CALL: "call functions",
    Right.RUN: "run code",
    Right.ADMIN: "see and end the calls of others",
}


def _check_sign_in(caller: Caller, now_s: float) -> None:
    if caller.is_anonymous:
        raise CallError(Code.NOT_ALLOWED, "nobody is let in without signing in")
    # A connection outlives the token that it was made with, so this is asked for each call.
    if caller.expires_at_s is not None and caller.expires_at_s <= now_s:
        raise CallError(Code.SIGN_IN, "your sign-in has expired; sign in and call again")


def _gives(one: Allowance, right: Right, function: str | None) -> bool:
    if right not in one.rights:
        return False
    return right is not Right.CALL or function is None or one.functions is None or function in one.functions


def _names(one: Allowance, caller: Caller) -> bool:
    return caller.email in one.people or bool(caller.roles & one.roles)


def _is_themself(caller: Caller) -> bool:
    """Say whether the token speaks for its person: their own, or one that may act in our workspace."""
    return caller.permission in FULL or (caller.permission is None and caller.parent is None)


def _lets_in(one: Allowance, caller: Caller, right: Right) -> bool:
    if right in SIGNED_IN and caller.parent is not None and not one.tokens:
        return False
    if caller.workspace in one.workspaces and caller.workspace_permission in FULL:
        return True
    return _names(one, caller) and _is_themself(caller)


def _refusal(giving: Iterable[Allowance], caller: Caller, doing: str) -> CallError:
    if any(_names(one, caller) or caller.workspace in one.workspaces for one in giving):
        text = "your token may only read here, or was made from another; sign in yourself and call again"
        return CallError(Code.SIGN_IN, text)
    return CallError(Code.NOT_ALLOWED, f"{caller.name} may not {doing} here; ask the owner of the cluster")
