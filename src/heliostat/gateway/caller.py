"""Who calls: taken from what the Hypha server has verified, and from nothing that the caller says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Caller:
    """One person or program behind a call.

    `id` is Hypha's user id; `email` is in lower case, None for who has none. `parent` is the id of the user
    whose token brought this one about. `permission` is the scope for the gateway's workspace: "a", "rw",
    "r", … or None. `workspace` is where the call came from, `workspace_permission` the scope for that one.
    `expires_at_s` is Unix time, None for never.
    """

    id: str
    email: str | None
    roles: frozenset[str]
    workspace: str
    permission: str | None
    parent: str | None
    expires_at_s: float | None
    is_anonymous: bool
    workspace_permission: str | None = None

    @property
    def account(self) -> str:
        """Return what stays the same over sign-ins and tokens: whose jobs, limits and GPU seconds these are.

        A token that was made from another has a new `id` each time, so that doesn't count.
        """
        return self.email or self.parent or self.id

    @property
    def name(self) -> str:
        """Return what logs and people call them."""
        return self.email or self.id
