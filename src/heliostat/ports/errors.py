"""Errors of the world, typed so that the loop can tell a retry from a refusal.

Transient ones may pass by themselves; permanent ones need a person. `retry_after_s` is for how long the
backend wants to be left alone (None: use the backoff). Each is raised `from` the backend's own error.
"""

from __future__ import annotations


class HeliostatError(Exception):
    """Anything a user may see: its text is one clear sentence."""


class ConfigError(HeliostatError):
    """Bad input. `problems` are whole lines, `file:line: key: found, allowed`; exit code 2."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ProviderError(HeliostatError):
    """A backend refused or failed."""

    transient = False

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(ProviderError):
    """The backend can't be reached, or did not answer in time; it may have acted all the same."""

    transient = True


class InsufficientCapacity(ProviderError):
    """The backend has no machine of this kind now."""

    transient = True


class QuotaExceeded(ProviderError):
    """A limit of the account or of the backend's rate was hit."""

    transient = True


class InvalidRequest(ProviderError):
    """The backend will never accept this."""


class AuthenticationFailed(ProviderError):
    """The backend does not know us, or no longer does."""


class Refused(HeliostatError):
    """A controller said no to a person's request. `code` is one of `REFUSALS`."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


REFUSALS = ("not_found", "conflict", "invalid", "refused")


class ClusterError(HeliostatError):
    """Ray's head can't be spoken to."""


class ClusterUnreachable(ClusterError):
    """The GCS did not answer within its deadline."""


class StrangerCluster(ClusterError):
    """Something answers at the head's address, but it is not our cluster's session."""


class TokenRefused(StrangerCluster):
    """The head refuses our token: it is another's, or the token file was changed under us."""


class StorageError(HeliostatError):
    """The server that keeps the head's state can't be reached, or refuses us."""


class JournalError(HeliostatError):
    """The journal can't be read or written: nothing may be started."""


class JournalBusy(JournalError):
    """Another process holds the journal."""
