"""What the gateway's services ask of the cluster: the port between callers and Ray."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Say = Callable[[str], None]
"""Takes a line on how a call gets on («waiting for a node: …»); it neither blocks nor raises."""


@dataclass(frozen=True)
class Needs:
    """What one call asks of a node, as Ray's `num_cpus`, `num_gpus` and `memory`, and its own time."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int | None = None
    timeout_s: float = 600.0


@dataclass(frozen=True)
class Script:
    """Python of a caller's own; its value is what it leaves in `result`. `inputs` are its variables."""

    text: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    runtime_env: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Done:
    """A call that came to its end. `ran_s` is from its start on a node, without the wait for one."""

    value: Any
    ran_s: float
    gpu_s: float
    node_id: str | None = None


@dataclass(frozen=True)
class Signature:
    """A published function as callers see it: its parameters' JSON schema, its words and its needs."""

    name: str
    doc: str
    parameters: Mapping[str, Any]
    returns: str
    needs: Needs


@dataclass(frozen=True)
class JobStatus:
    """A job as Ray tells it; `state` is one of Ray's words in lower case. Times are Unix seconds."""

    job_id: str
    state: str
    message: str
    entrypoint: str
    started_at_s: float | None = None
    ended_at_s: float | None = None


class Work(Protocol):
    """The cluster, as services use it. Every method raises `CallError`, and ends within its deadline.

    Cancelling the task that awaits `run_python` or `call` ends the work on its node. `call_id` names the
    call wherever it can be seen: in Ray's task name, in logs, in what it waits for.
    """

    async def run_python(self, call_id: str, script: Script, *, needs: Needs, say: Say) -> Done: ...

    async def call(
        self, call_id: str, function: str, *, arguments: Mapping[str, Any], needs: Needs | None, say: Say
    ) -> Done: ...

    async def functions(self) -> Sequence[Signature]: ...

    async def submit(
        self, call_id: str, entrypoint: str, *, runtime_env: Mapping[str, Any] | None, needs: Needs
    ) -> str:
        """Have Ray take a job, and return its id, which is `call_id`.

        LOST and TIMEOUT: nobody knows whether Ray has it. Then `job_status` tells, in a while.
        """
        ...

    async def job_status(self, job_id: str) -> JobStatus: ...

    def job_logs(self, job_id: str) -> AsyncIterator[str]:
        """Yield what the job has written and writes, until it ends."""
        ...

    async def stop_job(self, job_id: str) -> bool:
        """Say whether it still ran."""
        ...

    async def aclose(self, timeout_s: float) -> None:
        """Let what runs come to its end for so long, then end it and the driver."""
        ...
