"""The gateway's own token: where it is found, how long it holds, and the file that keeps it.

It is looked for in a variable, then in a file that nobody else may read, and is never printed or logged: its
text is left out of every representation. Only the server can say whether it is genuine; what it says of
itself is read to know its end.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heliostat.gateway.hypha.problems import HyphaError

MARGIN_S = 300.0
"""A token that ends within so long counts as ended: it must not do so while a connection is made."""

RENEW_AT = 0.5
"""The part of its life after which a token is renewed, so that a server away for hours does no harm."""


class TokenFileError(HyphaError):
    """The token's file can't be used; the text says what to do."""


@dataclass(frozen=True)
class Token:
    """A token and what it says of itself. `source` is where it was found, for people.

    Times are Unix seconds; None is not known.
    """

    text: str = field(repr=False)
    source: str
    begins_at_s: float | None = None
    expires_at_s: float | None = None

    def holds(self, now_s: float) -> bool:
        return self.expires_at_s is None or now_s < self.expires_at_s - MARGIN_S

    @property
    def lifetime_s(self) -> float | None:
        if self.begins_at_s is None or self.expires_at_s is None:
            return None
        return max(0.0, self.expires_at_s - self.begins_at_s)

    def renew_at_s(self) -> float | None:
        """Return when to renew it; None is never."""
        if self.expires_at_s is None:
            return None
        life_s = self.lifetime_s if self.lifetime_s is not None else 2 * MARGIN_S / (1 - RENEW_AT)
        return self.expires_at_s - max(2 * MARGIN_S, life_s * (1 - RENEW_AT))


@dataclass(frozen=True)
class Found:
    """What was found where tokens are kept: those that hold, best first, and why others don't."""

    tokens: tuple[Token, ...]
    refusals: tuple[str, ...]


def find(environ: Mapping[str, str], variable: str, path: Path, *, now_s: float) -> Found:
    """Look for tokens: the variable's first, then the file's. Raises `TokenFileError`."""
    tokens, refusals = [], []
    for text, source in (
        (environ.get(variable), f"the variable {variable}"),
        (read(path), f"the file {path}"),
    ):
        if not text or not text.strip():
            continue
        token = parse(text.strip(), source)
        if token.holds(now_s):
            tokens.append(token)
        else:
            refusals.append(f"the token in {source} has expired, or does within {MARGIN_S / 60:.0f} minutes")
    return Found(tuple(tokens), tuple(refusals))


def parse(text: str, source: str) -> Token:
    """Read what a token says of itself; of one that isn't a JSON Web Token nothing is known."""
    try:
        claims = json.loads(_decoded(text.split(".")[1]))
        return Token(text, source, _time(claims, "iat"), _time(claims, "exp"))
    except (IndexError, ValueError, AttributeError, binascii.Error):
        return Token(text, source)


def read(path: Path) -> str | None:
    """Return a token file's text, None if there is none; raises `TokenFileError` if others can read it."""
    try:
        found = path.stat()
        if found.st_uid != os.getuid():
            raise TokenFileError(f"the token file {path} belongs to another user (uid {found.st_uid})")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise TokenFileError(f"others can read the token file {path}: run `chmod 600 {path}`")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise TokenFileError(f"the token file {path} can't be read: {_why(error)}") from error


def keep(path: Path, text: str) -> None:
    """Write a token file that only this user can read, whole or not at all; raises `TokenFileError`."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise TokenFileError(f"the token file {path} can't be written: {_why(error)}") from error


def _why(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else "it is not text"


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
