"""A Hypha context into a `Caller`: only what the server has verified counts.

What is missing or of a wrong kind makes a caller smaller, never larger: without a word on it a caller is
anonymous, and holds no permission.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from heliostat.gateway.caller import Caller
from heliostat.gateway.errors import CallError, Code

ANONYMOUS = "anonymous"
EVERYWHERE = "*"
"""The name under which a scope has what holds for every workspace."""

RANKS: Mapping[str, int] = {"r": 1, "rw": 2, "a": 3}
FULL = frozenset({"rw", "a"})
"""Permissions of whoever may act in a workspace, and not only look at it."""


def caller_of(context: Mapping[str, Any] | None, workspace: str) -> Caller:
    """Return who calls; `workspace` is the gateway's. Raises CallError where the server does not say."""
    context = _mapping(context)
    user = _mapping(context.get("user"))
    identity, origin = _text(user.get("id")), _text(context.get("ws"))
    if identity is None or origin is None:
        raise CallError(Code.SIGN_IN, "the server did not say who you are; sign in and call again")
    roles = _texts(user.get("roles"))
    scopes = _mapping(_mapping(user.get("scope")).get("workspaces"))
    email = _text(user.get("email"))
    return Caller(
        id=identity,
        email=None if email is None else email.lower(),
        roles=roles,
        workspace=origin,
        permission=_permission(scopes, workspace),
        parent=_text(user.get("parent")),
        expires_at_s=_expiry(user.get("expires_at")),
        is_anonymous=user.get("is_anonymous") is not False or ANONYMOUS in roles,
        workspace_permission=_permission(scopes, origin),
    )


def _permission(scopes: Mapping[str, Any], workspace: str) -> str | None:
    """Return the stronger of what holds there and what holds everywhere, as the server itself has it."""
    held = [word for key in (workspace, EVERYWHERE) if (word := _text(scopes.get(key))) is not None]
    return max(held, key=lambda word: RANKS.get(word, 0), default=None)


def _expiry(value: object) -> float | None:
    """Return Unix seconds; only a plain null is never, and what can't be read was over long ago."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0.0
    return float(value)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: object) -> frozenset[str]:
    found = value if isinstance(value, list | tuple | set | frozenset) else ()
    return frozenset(one for one in found if isinstance(one, str))
