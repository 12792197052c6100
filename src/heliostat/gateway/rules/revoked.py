"""Whom the owner has shut out, whatever the cluster file allows: a file of mode 0600 that stays.

It holds e-mail addresses and the server's ids, never a token.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from heliostat.gateway.caller import Caller
from heliostat.gateway.errors import CallError, Code
from heliostat.ports.errors import HeliostatError

NAME = "revoked.json"
MESSAGE = "the owner has revoked your access"


class NoToken(HeliostatError):
    """What should have been a token is none."""


@dataclass(frozen=True)
class Revocation:
    """`who` is an e-mail address in lower case, or an id of the server's; `at_s` is Unix time."""

    who: str
    at_s: float


class Revocations:
    """The file is read once and written at each change. Raises HeliostatError where it can't be trusted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found = {one.who: one for one in _read(path)}

    def check(self, caller: Caller) -> None:
        """Raise CallError for somebody who is shut out, with whichever token of theirs."""
        if any(named(one) in self._found for one in (caller.email, caller.id, caller.parent) if one):
            raise CallError(Code.NOT_ALLOWED, MESSAGE)

    def add(self, who: str, *, now_s: float) -> Revocation:
        """Shut somebody out; this is on the disk when it returns."""
        entry = Revocation(named(who), now_s)
        self._write({**self._found, entry.who: self._found.get(entry.who, entry)})
        return self._found[entry.who]

    def take_back(self, who: str) -> bool:
        """Say whether they were shut out."""
        left = {key: one for key, one in self._found.items() if key != named(who)}
        if len(left) == len(self._found):
            return False
        self._write(left)
        return True

    def all(self) -> list[Revocation]:
        return sorted(self._found.values(), key=lambda one: (one.at_s, one.who))

    def _write(self, found: dict[str, Revocation]) -> None:
        temporary = self._path.with_name(f".{self._path.name}.new")
        try:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(file, "w", encoding="utf-8") as stream:
                json.dump([asdict(one) for one in found.values()], stream)
                stream.flush()
                os.fsync(file)
            os.replace(temporary, self._path)
        except OSError as error:
            raise HeliostatError(f"{self._path} can't be written: {error.strerror}") from error
        self._found = found


def named(who: str) -> str:
    """Return how somebody is kept: an address in lower case, an id of the server's as it is."""
    return who.lower() if "@" in who else who


def id_in(token: str) -> str:
    """Return whose token it is, by its own word: enough for shutting somebody out, for nothing else.

    A token that was made from another has an id of its own, one of a sign-in its person's. Raises NoToken.
    """
    parts = token.strip().split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (IndexError, ValueError, binascii.Error) as error:
        raise NoToken("this is no token of a Hypha server") from error
    found = claims.get("sub") if isinstance(claims, dict) else None
    if not isinstance(found, str) or not found:
        raise NoToken("this token does not say whose it is")
    return found


def _read(path: Path) -> list[Revocation]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HeliostatError(f"{path} can't be read: {error.strerror}") from error
    try:
        return [Revocation(str(one["who"]), float(one["at_s"])) for one in json.loads(text)]
    except (ValueError, TypeError, KeyError) as error:
        # Going on without it would let in whom the owner has shut out.
        raise HeliostatError(f"{path} can't be understood; mend it, or remove it and revoke again") from error
