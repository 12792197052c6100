"""What types alone can't say of `provider.gcs_storage`: addresses, where a password may be, TLS. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from heliostat.config.errors import found

_ADDRESS = re.compile(
    r"(?P<scheme>rediss?)://(?P<host>[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?):(?P<port>\d{1,5})"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

ADDRESS_RULE = "allowed is redis://<host>:<port>, or rediss://<host>:<port> for TLS"
ELSEWHERE = "name the user in username, and where the password is in password_file or password_env"


def parsed_address(text: str) -> tuple[bool, str, int] | None:
    """Return (TLS, host, port) of an address, None if it is none."""
    matched = _ADDRESS.fullmatch(text)
    if matched is None or not 0 < int(matched["port"]) < 65536:
        return None
    return matched["scheme"] == "rediss", matched["host"], int(matched["port"])


def wrong_keys(section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Return (key, «what was found; what is allowed») pairs; values of a wrong type are passed over."""
    text = {key: value for key, value in section.items() if isinstance(value, str)}
    yield from _address(text)
    yield from _password(text)
    for key in ("password_file", "ca_cert"):
        if key in text and not text[key].startswith(("/", "~")):
            yield key, f"{found(text[key])}; allowed is a file that begins with / or ~"


def _address(text: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if "address" not in text:
        return
    parsed = parsed_address(text["address"])
    if "@" in text["address"]:
        # It is not repeated here: what stands before the @ may be a secret.
        yield "address", f"a user or a password in the address; {ELSEWHERE}"
    elif parsed is None:
        yield "address", f"{found(text['address'])}; {ADDRESS_RULE}"
    elif parsed[0] and "ca_cert" not in text:
        yield "address", "TLS needs ca_cert: the authority that the server's certificate is checked against"
    elif not parsed[0] and "ca_cert" in text:
        yield "ca_cert", "it is for TLS only; write rediss:// in address"


def _password(text: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if "password_file" in text and "password_env" in text:
        yield "password_env", "the password is in password_file already; one of both is allowed"
    if "password_env" in text and not _VARIABLE.fullmatch(text["password_env"]):
        # Not repeated either: who takes this for the password's own place would see it in a log.
        yield "password_env", "no name of a variable; allowed are letters, digits and _, no digit first"
    if text.get("username") and not {"password_file", "password_env"} & text.keys():
        yield "username", "a user without a password; name its place in password_file or password_env"
