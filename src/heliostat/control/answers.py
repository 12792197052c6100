"""A provider's answer to launches, as the planner is told of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from heliostat.model.instance import Change
from heliostat.model.rejection import About, Answer, Rejection
from heliostat.ports.errors import AuthenticationFailed, ProviderError, QuotaExceeded, Unavailable
from heliostat.ports.provider import Outcome

_ABOUT: Mapping[type[ProviderError], About] = {
    Unavailable: About.BACKEND,
    AuthenticationFailed: About.BACKEND,
    QuotaExceeded: About.LIMIT,
}
"""What each error speaks of; any other of the type alone."""


def failed_launches(change: Change, outcome: Outcome) -> dict[str, ProviderError]:
    """Return the members of the change's launches that were not accepted, with why."""
    failed = dict(outcome.failed_instances)
    for request in change.launch:
        error = outcome.failed_launches.get(request.launch_id)
        if error is not None:
            failed.update(dict.fromkeys(request.instance_ids, error))
    return failed


def refused(failed: Mapping[str, ProviderError]) -> dict[str, Rejection]:
    """Return who surely does not come. `Unavailable` may have acted all the same: the listing will tell."""
    return {key: rejection(one) for key, one in failed.items() if not isinstance(one, Unavailable)}


def answer(change: Change, failed: Mapping[str, ProviderError]) -> Answer | None:
    """Return what came of the call as a whole; None where it launched nothing."""
    if not change.launch:
        return None
    rejections: dict[str, Rejection] = {}
    some = False
    for request in change.launch:
        errors = [failed[one] for one in request.instance_ids if one in failed]
        some |= len(errors) < request.count
        if errors:
            rejections[request.node_type.name] = rejection(errors[-1])
    names = {request.node_type.name for request in change.launch}
    return Answer(change.launch[0].launch_id, frozenset(names - rejections.keys()), rejections, some)


def rejection(error: ProviderError) -> Rejection:
    about = next((about for kind, about in _ABOUT.items() if isinstance(error, kind)), About.TYPE)
    return Rejection(str(error), about, permanent=not error.transient, retry_after_s=error.retry_after_s)
