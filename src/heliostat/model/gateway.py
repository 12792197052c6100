"""What the owner of a gateway has settled: who may do what, within which limits. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Right(Enum):
    """What an allowance gives; none of them contains another."""

    CALL = "call"
    """Functions that the owner has published, by name."""
    RUN = "run"
    """Code of the caller's own: `run_python`, `submit` and what belongs to a job."""
    ADMIN = "admin"
    """Everybody's calls: seeing and ending them."""


class SandboxKind(Enum):
    """What stands between a caller's script and the owner's account."""

    APPTAINER = "apptainer"
    BWRAP = "bwrap"
    NONE = "none"


@dataclass(frozen=True)
class CallLimits:
    """What one caller may use; None is no limit. `gpu_s_per_day` counts a UTC day."""

    calls_at_a_time: int | None = 4
    gpu_s_per_day: float | None = None
    timeout_s: float = 3600.0
    payload_bytes: int = 64 * 2**20


@dataclass(frozen=True)
class Allowance:
    """One entry of `allow`: whoever matches any of people, roles and workspaces gets the rights.

    `people` are e-mail addresses in lower case. `functions` are names; None is every published one. `tokens`:
    one that was made from another has the rights to run and to administer, too.
    """

    people: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    workspaces: frozenset[str] = frozenset()
    rights: frozenset[Right] = frozenset()
    functions: frozenset[str] | None = None
    tokens: bool = False
    limits: CallLimits = field(default_factory=CallLimits)


@dataclass(frozen=True)
class Sandbox:
    """How scripts run. `image` is apptainer's; `memory_bytes` limits a script whose call names none."""

    kind: SandboxKind
    image: str | None = None
    memory_bytes: int = 4 * 2**30


DRIVER_NAMESPACE = "heliostat_gateway"
"""Ray's namespace of a gateway's driver, by which it is told from drivers of people."""

TOKEN_VARIABLE = "HYPHA_TOKEN"
"""Where a token is looked for unless the file names another variable."""


@dataclass(frozen=True)
class GatewaySettings:
    """`provider.gateway`, checked. `sandbox` None: scripts are off, whatever `allow` says.

    `functions` is the module or the .py file of published functions. `token_env` and `token_file` say where
    the token is looked for, in this order. `workspace` None: that of the token. `runtime_env`: callers may
    name one. `keep_scripts`: their text is kept, not only its hash.
    """

    server_url: str
    allow: tuple[Allowance, ...] = ()
    workspace: str | None = None
    service_id: str = "heliostat"
    token_env: str = TOKEN_VARIABLE
    token_file: str | None = None
    functions: str | None = None
    sandbox: Sandbox | None = None
    runtime_env: bool = False
    keep_scripts: bool = False
    drain_timeout_s: float = 60.0


def token_variables(settings: GatewaySettings | None) -> frozenset[str]:
    """Return the variables that nothing of a cluster may have: what others let run would find them there.

    The usual one is among them even where no gateway is named: one may be, once the cluster is up.
    """
    return frozenset({TOKEN_VARIABLE} | ({settings.token_env} if settings else set()))
