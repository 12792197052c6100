"""What may go wrong with a group. Each says what happened and what was waited for."""

from __future__ import annotations


class GroupError(Exception):
    """Something is wrong with a group, and the caller has to decide."""


class GroupClosed(GroupError):
    """The group's `with` block is over (or was never entered): its members are gone."""


class TooFewMembers(GroupError, TimeoutError):
    """Fewer than `min_size` members for longer than `timeout_s`."""


class TooManyRestarts(GroupError):
    """More failures within `restart_window_s` than `max_restarts` allows. Says how the last one came."""


class MemberLost(GroupError):
    """A member was lost, or did not answer in time, while it worked for `map` or `call`."""
