"""The keys under `provider.gateway`: their types and defaults, and the words that say what is allowed.

What one key alone can't show, such as a right without its sandbox, is in `config/gateway.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from heliostat.config.errors import KeyPath
from heliostat.model.gateway import Allowance, CallLimits, GatewaySettings, Sandbox

UNLIMITED = "unlimited"
PAYLOAD_BYTES_MIN = 1024
MEMORY_BYTES_MIN = 64 * 2**20


def _written(value: Any) -> Any:
    """Refuse a key with nothing behind it: an empty limit would be none."""
    if value is None:
        raise ValueError("nothing is written here")
    return value


def _limit(value: Any) -> Any:
    return None if value == UNLIMITED else _written(value)


def _sandbox(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else _written(value)


_Limit = BeforeValidator(_limit)
Text = Annotated[str | None, BeforeValidator(_written)]
Seconds = Annotated[float, Field(gt=0)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class LimitsModel(_Closed):
    calls_at_a_time: Annotated[Annotated[int, Field(ge=1)] | None, _Limit] = CallLimits.calls_at_a_time
    gpu_s_per_day: Annotated[Annotated[float, Field(ge=0)] | None, _Limit] = CallLimits.gpu_s_per_day
    timeout_s: Seconds = CallLimits.timeout_s
    payload_bytes: Annotated[int, Field(ge=PAYLOAD_BYTES_MIN)] = CallLimits.payload_bytes


class AllowanceModel(_Closed):
    rights: list[Literal["call", "run", "admin"]]
    people: list[str] = Field(default_factory=list)
    roles: list[str] = Field(default_factory=list)
    workspaces: list[str] = Field(default_factory=list)
    functions: Annotated[list[str] | None, BeforeValidator(_written)] = None
    tokens: bool = Allowance.tokens
    limits: LimitsModel = Field(default_factory=LimitsModel)


class SandboxModel(_Closed):
    kind: Literal["apptainer", "bwrap", "none"]
    image: Text = None
    memory_bytes: Annotated[int, Field(ge=MEMORY_BYTES_MIN)] = Sandbox.memory_bytes
    accepted: Text = None


class GatewayModel(_Closed):
    server_url: str
    workspace: Text = None
    service_id: str = GatewaySettings.service_id
    token_env: str = GatewaySettings.token_env
    token_file: Text = None
    functions: Text = None
    sandbox: Annotated[SandboxModel | None, BeforeValidator(_sandbox)] = None
    runtime_env: bool = GatewaySettings.runtime_env
    keep_scripts: bool = GatewaySettings.keep_scripts
    drain_timeout_s: Seconds = GatewaySettings.drain_timeout_s
    allow: list[AllowanceModel] = Field(default_factory=list)


ROOT: KeyPath = ("provider", "gateway")
_ALLOW: KeyPath = (*ROOT, "allow", "*")
_LIMITS: KeyPath = (*_ALLOW, "limits")

_SECONDS = "a number of seconds above 0"
_FILE = "text: a file that begins with / or ~"
KINDS = "apptainer, bwrap or none"
RIGHTS = "call, run or admin"
ACCEPTED = "a sentence in quotes that says that you accept it"

WORDS: Mapping[KeyPath, str] = {
    ROOT: "a mapping with at least server_url: https://<host>",
    (*ROOT, "server_url"): "the Hypha server: https://<host>, with :<port> if it needs one",
    (*ROOT, "workspace"): "text: the name of a workspace of the Hypha server",
    (*ROOT, "service_id"): "letters, digits, - and _, a letter first",
    (*ROOT, "token_env"): "text: the name of a variable",
    (*ROOT, "token_file"): _FILE,
    (*ROOT, "functions"): "text: a module such as lab.analysis, or a file such as analysis.py",
    (*ROOT, "sandbox"): f"{KINDS}, or a mapping such as {{kind: apptainer, image: ~/python.sif}}",
    (*ROOT, "sandbox", "kind"): KINDS,
    (*ROOT, "sandbox", "image"): "text: a file that begins with / or ~, or an address such as docker://…",
    (*ROOT, "sandbox", "memory_bytes"): f"a whole number of bytes, {MEMORY_BYTES_MIN} (64 MiB) or more",
    (*ROOT, "sandbox", "accepted"): ACCEPTED,
    (*ROOT, "runtime_env"): "true or false",
    (*ROOT, "keep_scripts"): "true or false",
    (*ROOT, "drain_timeout_s"): _SECONDS,
    (*ROOT, "allow"): "a list such as [{people: [ada@example.org], rights: [call]}]",
    _ALLOW: "a mapping such as {people: [ada@example.org], rights: [call]}",
    (*_ALLOW, "people"): "a list of e-mail addresses",
    (*_ALLOW, "people", "*"): "an e-mail address",
    (*_ALLOW, "roles"): "a list of roles of the Hypha server",
    (*_ALLOW, "roles", "*"): "the name of a role",
    (*_ALLOW, "workspaces"): "a list of workspaces of the Hypha server",
    (*_ALLOW, "workspaces", "*"): "the name of a workspace",
    (*_ALLOW, "rights"): f"a list of {RIGHTS}",
    (*_ALLOW, "rights", "*"): RIGHTS,
    (*_ALLOW, "functions"): "a list of published functions; without it, all of them",
    (*_ALLOW, "functions", "*"): "the name of a published function",
    (*_ALLOW, "tokens"): "true or false",
    _LIMITS: "a mapping such as {calls_at_a_time: 2}",
    (*_LIMITS, "calls_at_a_time"): f"a whole number, 1 or more, or {UNLIMITED}",
    (*_LIMITS, "gpu_s_per_day"): f"a number of GPU seconds, 0 or more, or {UNLIMITED}",
    (*_LIMITS, "timeout_s"): _SECONDS,
    (*_LIMITS, "payload_bytes"): f"a whole number of bytes, {PAYLOAD_BYTES_MIN} or more",
}
"""What may stand at a key, in words; `*` is any index."""

ELSEWHERE: Mapping[KeyPath, str] = {
    ("gateway",): "it belongs under provider",
    (*ROOT, "token"): "a secret has no place in a file that others read; name a variable in token_env, "
    "or a file of mode 0600 in token_file",
    (*ROOT, "limits"): "limits belong to an entry of allow",
    (*ROOT, "accepted"): "it belongs under sandbox: {kind: none, accepted: …}",
    (*ROOT, "image"): "it belongs under sandbox: {kind: apptainer, image: …}",
    (*_ALLOW, "function"): "write functions, a list",
}
"""Keys that people write in another place, and where they belong."""

MODELS: Mapping[KeyPath, type[BaseModel]] = {
    ROOT: GatewayModel,
    (*ROOT, "sandbox"): SandboxModel,
    _ALLOW: AllowanceModel,
    _LIMITS: LimitsModel,
}


def with_stars(parts: KeyPath) -> KeyPath:
    """Replace the places in lists by `*`; other paths come back as they are."""
    if parts[:3] != (*ROOT, "allow"):
        return parts
    return tuple("*" if isinstance(part, int) else part for part in parts)
