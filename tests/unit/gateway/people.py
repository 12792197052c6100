"""Callers, allowances and what a Hypha server says of them, for the tests of the rules."""

from __future__ import annotations

from typing import Any

from heliostat.gateway.caller import Caller
from heliostat.model.gateway import Allowance, Right

NOW_S = 1_760_000_000.0
WORKSPACE = "lab"
ADA = "ada@example.org"


def caller(email: str | None = ADA, **changes: Any) -> Caller:
    """Return somebody who has signed in themself, in a workspace of their own."""
    values: dict[str, Any] = {
        "id": "u-ada",
        "email": email,
        "roles": frozenset(),
        "workspace": "ws-user-ada",
        "permission": None,
        "parent": None,
        "expires_at_s": NOW_S + 3600.0,
        "is_anonymous": False,
        "workspace_permission": "a",
    }
    return Caller(**{**values, **changes})


def allowance(*rights: Right, people: tuple[str, ...] = (ADA,), **changes: Any) -> Allowance:
    return Allowance(**{"people": frozenset(people), "rights": frozenset(rights), **changes})


def context(**user: Any) -> dict[str, Any]:
    """Return what the server puts beside a call, as seen with hypha 0.21; `ws` and `user` may be changed."""
    origin = user.pop("ws", "ws-user-ada")
    return {
        "ws": origin,
        "from": f"{origin}/client-1",
        "to": f"{WORKSPACE}/gateway",
        "user": {
            "id": "u-ada",
            "roles": [],
            "is_anonymous": False,
            "email": "Ada@Example.org",
            "parent": None,
            "scope": {"current_workspace": origin, "workspaces": {"ws-user-ada": "a"}, "client_id": None},
            "expires_at": NOW_S + 3600.0,
            "current_workspace": None,
            **user,
        },
    }
