"""Jobs and calls under the real rules, over the end of a gateway and the start of the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from heliostat.gateway.rules.audit import lines_in
from heliostat.gateway.rules.gate import Gate, open_gate
from heliostat.gateway.work.port import JobStatus
from heliostat.model.gateway import CallLimits, GatewaySettings, Right, Sandbox, SandboxKind
from tests.gateway_parts import Gateway, WorkOnCall, gateway
from tests.unit.gateway.people import ADA, NOW_S, WORKSPACE, allowance, context

ROOT = context(email="root@example.org", id="u-root")
ALLOW = (
    allowance(Right.RUN, limits=CallLimits(calls_at_a_time=2)),
    allowance(Right.ADMIN, people=("root@example.org",)),
)
PENDING = JobStatus("", "pending", "", "x", started_at_s=NOW_S)


class Queue(WorkOnCall):
    async def submit(self, call_id: str, entrypoint: str, **more: Any) -> str:
        self.jobs[call_id] = replace(PENDING, job_id=call_id)
        return call_id


@dataclass
class World:
    """A cluster that outlives the gateways before it, and its clock."""

    folder: Path
    work: Queue = field(default_factory=Queue)
    now_s: float = NOW_S
    gates: list[Gate] = field(default_factory=list)

    def started(self) -> tuple[Gate, Gateway, dict[str, Any]]:
        """Return a gateway that begins now."""
        sandbox = Sandbox(SandboxKind.NONE)
        settings = GatewaySettings("https://h", ALLOW, workspace=WORKSPACE, sandbox=sandbox)
        gate = open_gate(settings, self.folder, now_s=lambda: self.now_s)
        self.gates.append(gate)
        parts = gateway(self.folder, gate, self.work, prefix=f"g{len(self.gates)}-")  # type: ignore[arg-type]
        parts.services.start()
        return gate, parts, parts.functions()

    def job(self, job_id: str, state: str, *, ended_at_s: float | None = None) -> None:
        self.work.jobs[job_id] = replace(PENDING, job_id=job_id, state=state, ended_at_s=ended_at_s)

    def ended(self) -> list[tuple[str, str, float]]:
        assert all(gate.audit.settle(10) for gate in self.gates)
        lines = lines_in(self.folder / "audit.jsonl")
        return [(one["call_id"], one["outcome"], one["gpu_s"]) for one in lines if one["event"] == "ended"]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("heliostat.gateway.hypha.job_keeper.LOOK_AFTER_S", 0.0)
    return World(tmp_path)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


async def submitted(world: World, functions: dict[str, Any]) -> str:
    found = await functions["submit"]("x", resources={"GPU": 2}, timeout_s=1000.0, context=context())
    assert found["ok"], found
    return str(found["value"])


async def ends(gate: Gate, parts: Gateway, *, killed: bool) -> None:
    if killed:
        # It is left as it is, and nothing that it may still do is seen.
        gate.audit.add_at_last = lambda _: None  # type: ignore[method-assign]
        return
    await parts.services.aclose(0.0)
    gate.close()


@pytest.mark.parametrize("killed", [False, True])
async def test_a_job_goes_on_under_the_next_gateway(world: World, killed: bool) -> None:
    gate, parts, functions = world.started()
    job_id = await submitted(world, functions)
    world.now_s += 100.0
    world.job(job_id, "running")
    await until(lambda: any(one["event"] == "running" for one in lines_in(world.folder / "audit.jsonl")))
    world.now_s += 20.0
    await ends(gate, parts, killed=killed)
    assert world.ended() == []

    world.job(job_id, "running")
    world.now_s += 1000.0
    gate, parts, functions = world.started()
    assert gate.usage.calls(ADA) == 1
    assert [(one.call_id, one.account) for one in gate.register.in_flight()] == [(job_id, ADA)]
    assert (await functions["job_status"](job_id, context=context()))["ok"]
    world.job(job_id, "succeeded", ended_at_s=NOW_S + 350.0)
    await until(lambda: not gate.register.in_flight())
    # It ran from 100 s on, whoever was there to see it.
    assert world.ended() == [(job_id, "ok", 500.0)]
    assert gate.usage.spent_s(ADA, now_s=world.now_s) == 500.0
    await ends(gate, parts, killed=False)
    assert world.started()[0].register.in_flight() == []


async def test_a_job_that_was_left_in_the_queue_begins_to_cost_when_it_runs(world: World) -> None:
    gate, parts, functions = world.started()
    job_id = await submitted(world, functions)
    await ends(gate, parts, killed=False)
    world.now_s += 500.0
    gate, parts, functions = world.started()
    await until(lambda: gate.register.in_flight()[0].is_waiting)
    world.job(job_id, "running")
    await until(lambda: not gate.register.in_flight()[0].is_waiting)
    world.now_s += 10.0
    world.job(job_id, "failed", ended_at_s=world.now_s)
    await until(lambda: not gate.register.in_flight())
    assert world.ended() == [(job_id, "ok", 20.0)]


@pytest.mark.parametrize("how", ["revoked", "revoked before", "stop_call", "stop_job"])
async def test_who_ends_an_old_job_finds_it(world: World, how: str) -> None:
    gate, parts, functions = world.started()
    job_id = await submitted(world, functions)
    world.job(job_id, "running")
    await ends(gate, parts, killed=True)
    if how == "revoked before":
        gate.revocations.add(ADA, now_s=world.now_s)
    gate, parts, functions = world.started()
    if how == "revoked":
        assert gate.shut_out(ADA) == 1
    elif how == "stop_call":
        assert (await functions["stop_call"](job_id, context=ROOT))["value"] is True
    elif how == "stop_job":
        assert (await functions["stop_job"](job_id, context=context()))["value"] is True
    await until(lambda: not gate.register.in_flight())
    assert world.work.jobs[job_id].state == "stopped"
    assert [one[1] for one in world.ended()] == ["ok" if how == "stop_job" else "stopped"]


async def test_who_is_shut_out_before_the_job_begins_has_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, parts, functions = world.started()
    certain = gate.audit.add_for_certain

    async def slow(line: Any) -> None:
        await certain(line)
        assert gate.shut_out(ADA) == 1

    monkeypatch.setattr(gate.audit, "add_for_certain", slow)
    found = await functions["submit"]("x", resources={"GPU": 2}, context=context())
    assert (found["error"]["code"], world.work.jobs) == ("stopped", {})
    await ends(gate, parts, killed=False)


async def test_an_old_job_is_taken_up_whatever_the_disk_says(world: World) -> None:
    gate, parts, functions = world.started()
    job_id = await submitted(world, functions)
    await ends(gate, parts, killed=True)
    (world.folder / "jobs").unlink()
    gate, parts, functions = world.started()
    (world.folder / "jobs").mkdir()
    await until(lambda: gate.register.in_flight()[0].is_waiting)
    assert (await functions["stop_job"](job_id, context=context()))["value"] is False
    await until(lambda: not gate.register.in_flight())
    assert world.ended()[0][:2] == (job_id, "ok")


async def test_a_job_that_never_reached_ray_is_lost(world: World) -> None:
    gate, parts, functions = world.started()
    job_id = await submitted(world, functions)
    await ends(gate, parts, killed=True)
    world.work.jobs.clear()
    world.now_s += 50.0
    gate, parts, functions = world.started()
    await until(lambda: not gate.register.in_flight())
    # Nobody knows whether it ran, so it is charged as any call that a gateway has lost.
    assert world.ended() == [(job_id, "lost", 100.0)]


async def test_old_jobs_count_for_the_limit(world: World) -> None:
    gate, parts, functions = world.started()
    for _ in range(2):
        await submitted(world, functions)
    await ends(gate, parts, killed=False)
    gate, parts, functions = world.started()
    refused = await functions["submit"]("x", resources={"CPU": 1}, context=context())
    assert refused["error"]["code"] == "limit"
    await ends(gate, parts, killed=False)


async def test_who_comes_back_for_a_call_that_a_gateway_took_with_it_hears_so(world: World) -> None:
    gate, parts, functions = world.started()
    call_id = (await functions["run_python"]("1", wait=False, context=context()))["call_id"]
    await world.work.arrived.get()
    await ends(gate, parts, killed=True)

    gate, parts, functions = world.started()
    look = (await functions["progress"](call_id, 7, context=context()))["value"]
    assert (look["lines"], look["offset"], look["done"]) == ([], 7, True)
    assert (look["answer"]["call_id"], look["answer"]["error"]["code"]) == (call_id, "lost")
    seen = (await functions["status"](context=context()))["value"]["calls"]
    assert [(one["call_id"], one["outcome"]) for one in seen] == [(call_id, "lost")]
    for who, asked in ((ROOT, call_id), (context(), "none such")):
        assert (await functions["progress"](asked, context=who))["error"]["code"] == "unknown_job"
    await ends(gate, parts, killed=False)
