"""`provider.gateway`: what its types alone can't say, and the way to the settings of a gateway. Pure but for
`missing_here`.

A section that would let in more than its owner can have meant is refused: a right to run without a sandbox,
everybody's workspace, an address that is none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from heliostat.config.errors import KeyPath, found
from heliostat.config.gateway_schema import ACCEPTED, ROOT, WORDS, AllowanceModel, GatewayModel, SandboxModel
from heliostat.config.setup import local_path
from heliostat.model.gateway import Allowance, CallLimits, GatewaySettings, Right, Sandbox, SandboxKind

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(:\d{1,5})?/?"
)
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|\[::1\]")
_EMAIL = re.compile(r"[^@\s*]+@[^@\s*]+\.[^@\s*.]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SERVICE_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_IMAGE = re.compile(r"[/~].*|(docker|oras|library|shub)://.+")
_NAME = re.compile(r"[^\s/:*]+")

SENTENCE_WORDS_MIN = 4
_EVERYBODY = {
    "roles": ("anonymous", "whoever has not signed in is never let in"),
    "workspaces": ("public", "everybody is in it"),
}


def wrong_keys(section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Return (dotted key, «what was found; what is allowed») pairs; wrong types are passed over."""
    text = {key: value for key, value in section.items() if isinstance(value, str)}
    yield from _server(text)
    yield from _names(text)
    yield from _sandbox(section)
    for index, entry in enumerate(_list(section.get("allow"))):
        if isinstance(entry, dict):
            for key, said in _entry(entry, section):
                yield f"allow.{index}{key}", said


def _server(text: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    url = text.get("server_url")
    if url is None:
        return
    matched = _URL.fullmatch(url)
    if "@" in url:
        # It is not repeated: what stands before the @ may be a secret.
        yield (
            "server_url",
            "a user or a password in the address; a token is looked for in token_env and token_file",
        )
    elif matched is None:
        yield "server_url", f"{found(url)}; allowed is {_words('server_url')}"
    elif matched["scheme"] == "http" and not _LOOPBACK.fullmatch(matched["host"]):
        yield (
            "server_url",
            f"{found(url)}: over http everyone on the way could read the token; allowed is https://<host>, "
            "and http:// for a server on this machine (localhost)",
        )


def _names(text: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key, rule in (("workspace", _NAME), ("service_id", _SERVICE_ID)):
        if key in text and not rule.fullmatch(text[key]):
            yield key, f"{found(text[key])}; allowed is {_words(key)}"
    if "token_env" in text and not _VARIABLE.fullmatch(text["token_env"]):
        # Not repeated either: who takes this for the token's own place would see it in a log.
        yield "token_env", "no name of a variable; allowed are letters, digits and _, no digit first"
    if "token_file" in text and not text["token_file"].startswith(("/", "~/")):
        yield "token_file", "no file's name; allowed is a file that begins with / or ~"
    if "functions" in text and not (_is_file(text["functions"]) or _MODULE.fullmatch(text["functions"])):
        yield "functions", f"{found(text['functions'])}; allowed is {_words('functions')}"


def _sandbox(section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    written = section.get("sandbox")
    keys = {"kind": written} if isinstance(written, str) else written
    if not isinstance(keys, dict):
        return
    kind, image, accepted = keys.get("kind"), keys.get("image"), keys.get("accepted")
    if kind == "none" and "accepted" not in keys:
        yield (
            "sandbox",
            "none: a script could read, change and delete all that your account can; to accept that, write "
            f"sandbox: {{kind: none, accepted: <{ACCEPTED}>}}, else apptainer or bwrap",
        )
    elif isinstance(accepted, str) and kind != "none":
        yield "sandbox.accepted", "it is for kind: none only; leave it out"
    elif isinstance(accepted, str) and len(accepted.split()) < SENTENCE_WORDS_MIN:
        yield (
            "sandbox.accepted",
            f"{found(accepted)}; allowed is {ACCEPTED}, of {SENTENCE_WORDS_MIN} words or more",
        )
    if kind == "apptainer" and "image" not in keys:
        yield (
            "sandbox",
            "apptainer needs an image; write sandbox: {kind: apptainer, image: <file or docker://…>}",
        )
    elif isinstance(image, str) and kind != "apptainer":
        yield "sandbox.image", "it is for kind: apptainer only; leave it out"
    elif isinstance(image, str) and not _IMAGE.fullmatch(image):
        yield "sandbox.image", f"{found(image)}; allowed is {_words('sandbox', 'image')}"


def _entry(entry: Mapping[str, Any], section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    who = ("people", "roles", "workspaces")
    if not any(entry.get(key) for key in who):
        yield "", "it lets nobody in; write people, roles or workspaces, or leave the entry out"
    for key in who:
        yield from _everybody(key, entry)
    for index, address in enumerate(_list(entry.get("people"))):
        if isinstance(address, str) and not _EMAIL.fullmatch(address):
            yield (
                f".people.{index}",
                f"{found(address)}; allowed is an e-mail address such as ada@example.org",
            )
    yield from _rights(entry, section)


def _everybody(key: str, entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    word, why = _EVERYBODY.get(key, ("*", ""))
    for index, name in enumerate(_list(entry.get(key))):
        if not isinstance(name, str) or key == "people":
            continue
        if name == word:
            yield f".{key}.{index}", f"{found(name)}: {why}; name people, or a narrower one"
        elif not _NAME.fullmatch(name):
            yield (
                f".{key}.{index}",
                f"{found(name)}; allowed is {_words('allow', '*', key, '*')}, without patterns",
            )


def _rights(entry: Mapping[str, Any], section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    rights = entry.get("rights")
    if rights == []:
        yield ".rights", f"{found(rights)}; allowed is {_words('allow', '*', 'rights')}"
    given = [one for one in _list(rights) if isinstance(one, str)]
    if "run" in given and "sandbox" not in section:
        yield (
            ".rights",
            "run needs provider.gateway.sandbox: apptainer, bwrap, or none with a sentence that accepts it",
        )
    if "call" in given and "functions" not in section:
        yield ".rights", "call needs provider.gateway.functions: the module whose functions are published"
    functions = entry.get("functions")
    if isinstance(functions, list) and "call" not in given:
        yield ".functions", "functions are for the right call; add it to rights, or leave them out"
    elif functions == []:
        yield ".functions", "an empty list; write the functions' names, or leave the key out for all of them"
    for index, name in enumerate(_list(functions)):
        if isinstance(name, str) and not name.isidentifier():
            yield f".functions.{index}", f"{found(name)}; allowed is the name of a published function"


def missing_here(data: Mapping[str, Any], base_dir: Path) -> Iterator[tuple[KeyPath, str]]:
    """Return what this host has not: the file of published functions."""
    written = _functions(data)
    if written is not None and _is_file(written) and not os.path.isfile(local_path(written, base_dir)):
        yield (*ROOT, "functions"), f"{found(written)}: there is no {local_path(written, base_dir)} here"


def with_absolute_paths(data: Mapping[str, Any], settings: GatewaySettings | None) -> dict[str, Any]:
    """Return the keys of `provider` that hold relative paths, with absolute ones; `data` is a whole file."""
    if settings is None or _functions(data) == settings.functions:
        return {}
    return {"gateway": {**data["provider"]["gateway"], "functions": settings.functions}}


def settings_of(model: GatewayModel, base_dir: Path) -> GatewaySettings:
    """Return the settings of a section that has passed the checks. `functions` is seen from `base_dir`."""
    functions = model.functions
    return GatewaySettings(
        server_url=model.server_url.rstrip("/"),
        allow=tuple(map(_allowance, model.allow)),
        workspace=model.workspace,
        service_id=model.service_id,
        token_env=model.token_env,
        token_file=None if model.token_file is None else os.path.expanduser(model.token_file),
        functions=local_path(functions, base_dir) if functions and _is_file(functions) else functions,
        sandbox=None if model.sandbox is None else _sandbox_of(model.sandbox),
        runtime_env=model.runtime_env,
        keep_scripts=model.keep_scripts,
        drain_timeout_s=model.drain_timeout_s,
    )


def _sandbox_of(model: SandboxModel) -> Sandbox:
    image = None if model.image is None else os.path.expanduser(model.image)
    return Sandbox(SandboxKind(model.kind), image=image, memory_bytes=model.memory_bytes)


def _allowance(model: AllowanceModel) -> Allowance:
    limits = model.limits
    return Allowance(
        people=frozenset(address.lower() for address in model.people),
        roles=frozenset(model.roles),
        workspaces=frozenset(model.workspaces),
        rights=frozenset(map(Right, model.rights)),
        functions=None if model.functions is None else frozenset(model.functions),
        tokens=model.tokens,
        limits=CallLimits(
            calls_at_a_time=limits.calls_at_a_time,
            gpu_s_per_day=limits.gpu_s_per_day,
            timeout_s=limits.timeout_s,
            payload_bytes=limits.payload_bytes,
        ),
    )


def _functions(data: Mapping[str, Any]) -> str | None:
    provider = data.get("provider")
    section = provider.get("gateway") if isinstance(provider, dict) else None
    written = section.get("functions") if isinstance(section, dict) else None
    return written if isinstance(written, str) else None


def _is_file(functions: str) -> bool:
    return functions.endswith(".py") and "\0" not in functions


def _words(*key: str) -> str:
    return WORDS[(*ROOT, *key)]


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
