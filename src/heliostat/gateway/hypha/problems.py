"""What may go wrong between the gateway and its Hypha server; each text is for the owner."""

from __future__ import annotations

from heliostat.ports.errors import HeliostatError


class HyphaError(HeliostatError):
    """Hypha's server or its client failed."""


class NotInstalled(HyphaError):
    """There is no client for Hypha in this Python."""


class NotReached(HyphaError):
    """The server does not answer, or not in time; it may later."""


class SignInNeeded(HyphaError):
    """The server refuses the token: it has expired, was revoked, is forged, or is for another workspace."""


class NameTaken(HyphaError):
    """Another client of this name is connected to the workspace."""


class NobodySignedIn(HyphaError):
    """The links that were shown have lapsed."""
