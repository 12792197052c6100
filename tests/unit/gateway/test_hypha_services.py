"""The functions that callers see, over stand-ins for rules and cluster: nothing goes back but an answer."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.hypha import payload, streams
from heliostat.gateway.work.port import Needs, Signature
from tests.gateway_parts import RulesByName, WorkOnCall, gateway
from tests.unit.gateway.served_calls import ADA, BOB, MAY, STRANGER, made

BLUR = Signature("blur", "Blur an image.", {"type": "object"}, "ndarray", Needs(cpus=2.0, timeout_s=30.0))


async def test_hello_says_who_calls_and_what_answers(tmp_path: Path) -> None:
    hello = made(tmp_path).functions()["hello"]
    assert await hello(context=ADA) == {
        "ok": True,
        "call_id": "c1",
        "value": {
            "you": {"name": "ada@example.org", "id": "ada", "workspace": "ws-user-ada"},
            "gateway": {"cluster": "demo"},
        },
    }


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("hello", {}),
        ("status", {}),
        ("functions", {}),
        ("run_python", {"script": "1"}),
        ("call", {"function": "blur"}),
        ("call", {"function": "none such"}),
        ("progress", {"call_id": "c1"}),
        ("stop_call", {"call_id": "c1"}),
        ("calls", {}),
        ("submit", {"entrypoint": "ls"}),
        ("job_status", {"job_id": "j"}),
        ("job_logs", {"job_id": "j"}),
        ("stop_job", {"job_id": "j"}),
    ],
)
async def test_a_stranger_gets_the_same_short_answer_everywhere(
    tmp_path: Path, function: str, arguments: dict[str, Any]
) -> None:
    one = made(tmp_path, WorkOnCall(signatures=[BLUR]))
    refused = await one.functions()[function](**arguments, context=STRANGER)
    message = "the owner of this gateway has not let you do this"
    assert refused == {"ok": False, "call_id": "c1", "error": {"code": "not_allowed", "message": message}}
    assert one.rules.entries == []


@pytest.mark.parametrize(
    ("positional", "named", "message"),
    [
        ((), {}, "script: is required"),
        (("1",), {"script": "2"}, "script is given twice"),
        (("1", {}, 3), {}, "2: there is no such argument"),
        ((5,), {}, "script: input should be a valid string"),
        (("1",), {"inputs": [1]}, "inputs: input should be a valid dictionary"),
        (("1",), {"inputs": {"a": {1, 2}}}, "inputs.a: values of type set can't be sent"),
        (("1",), {"resources": {"TPU": 1}}, "resources.TPU.[key]: input should be 'CPU', 'GPU' or 'memory'"),
        (("1",), {"resources": {"CPU": -1}}, "resources.CPU: input should be greater than or equal to 0"),
        (("1",), {"timeout_s": 0}, "timeout_s: input should be greater than 0"),
        (("1",), {"_rtype": 1, "nice": 2}, "nice: there is no such argument"),
    ],
)
async def test_wrong_arguments_are_named(
    tmp_path: Path, positional: tuple[Any, ...], named: dict[str, Any], message: str
) -> None:
    found = await made(tmp_path).functions()["run_python"](*positional, **named, context=ADA)
    assert found["error"]["code"] == "invalid"
    assert message in found["error"]["message"]


async def test_nothing_is_made_of_what_somebody_brings_who_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = []
    monkeypatch.setattr(payload, "plain", lambda value, *, where: looked_at.append(where))
    functions = made(tmp_path, WorkOnCall(signatures=[BLUR])).functions()
    for name, arguments in (
        ("run_python", {"script": "1", "inputs": {"a": [1]}}),
        ("call", {"function": "blur"}),
        ("submit", {"entrypoint": "ls", "runtime_env": {"a": [1]}}),
    ):
        assert (await functions[name](**arguments, context=STRANGER))["error"]["code"] == "not_allowed"
    assert looked_at == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"inputs": dict.fromkeys(map(str, range(200_001)))}, "too_large"),
        ({"inputs": {"a": [0] * 200_001}}, "too_large"),
        ({"resources": {"CPU": 1} | dict.fromkeys(map(str, range(1000)))}, "invalid"),
        (dict.fromkeys(map(str, range(1000))), "invalid"),
    ],
)
async def test_what_holds_too_many_values_is_refused_in_a_sentence(
    tmp_path: Path, arguments: dict[str, Any], code: str
) -> None:
    refused = await made(tmp_path).functions()["run_python"](**{"script": "1", **arguments}, context=ADA)
    assert refused["error"]["code"] == code
    assert len(refused["error"]["message"]) < 200


async def test_values_are_read_and_written_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Walking through the values waits until the loop has done something else."""
    turned, walked = threading.Event(), []
    for name in ("plain", "to_json", "from_json"):
        real = getattr(payload, name)

        def slow(value: Any, *args: Any, real: Any = real, **more: Any) -> Any:
            walked.append(turned.wait(10))
            return real(value, *args, **more)

        monkeypatch.setattr(payload, name, slow)
    one = made(tmp_path, WorkOnCall(lambda script: 1))
    run = asyncio.create_task(one.functions()["run_python"]("1", {"a": 1}, encoding="json", context=ADA))
    assert (await one.functions()["hello"](context=ADA))["ok"]
    turned.set()
    assert (await run)["value"] == 1
    assert walked
    assert all(walked)


async def test_kept_answers_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "KEPT_MAX_BYTES", 100)
    measured: list[Any] = []
    real = payload.size_bytes
    monkeypatch.setattr(payload, "size_bytes", lambda value: measured.append(value) or real(value))
    one = made(tmp_path, WorkOnCall(lambda script: b"x" * 40))
    run, look = one.functions()["run_python"], one.functions()["progress"]
    ids = [(await run("1", wait=False, context=ADA))["call_id"] for _ in range(3)]
    await asyncio.gather(*(call.task for call in one.underway._calls.values()))
    found = [await look(call_id, context=ADA) for call_id in ids]
    assert [one["ok"] for one in found] == [False, True, True]
    assert measured.count(b"x" * 40) == 3


async def test_a_defect_is_told_to_nobody_but_the_owner(tmp_path: Path) -> None:
    def run(script: Any) -> Any:
        raise KeyError("/home/ada/secret")

    class Broken(WorkOnCall):
        async def job_status(self, job_id: str) -> Any:
            raise KeyError("/home/ada/secret")

        async def submit(self, *_: Any, **__: Any) -> str:
            raise KeyError("/home/ada/secret")

    one = made(tmp_path, Broken(run))
    one.services._jobs._owners.add("j", "ada@example.org")
    for function, arguments in (
        ("run_python", {"script": "1"}),
        ("job_status", {"job_id": "j"}),
        ("submit", {"entrypoint": "ls"}),
    ):
        found = await one.functions()[function](**arguments, context=ADA)
        assert found["error"]["code"] == "internal"
        assert "secret" not in json.dumps(found)


async def test_a_script_gets_its_inputs_and_its_value_goes_back(tmp_path: Path) -> None:
    image = np.arange(4.0)
    one = made(tmp_path, WorkOnCall(lambda script: script.inputs["image"] * 2))
    found = await one.functions()["run_python"]("…", {"image": image}, context=ADA)
    np.testing.assert_array_equal(found["value"], image * 2)
    (entry,) = one.rules.entries
    assert (entry.ask.payload_bytes, entry.outcome) == (3 + 5 + 32 + 8 + 8, "ok")
    assert [done.ran_s for done in entry.costs] == [0.5]


async def test_who_speaks_json_gets_json(tmp_path: Path) -> None:
    one = made(tmp_path, WorkOnCall(lambda script: [script.inputs["raw"], float("nan")]))
    inputs = {"raw": {"$bytes": "AP8="}}
    found = await one.functions()["run_python"](script="…", inputs=inputs, encoding="json", context=ADA)
    assert json.loads(json.dumps(found, allow_nan=False))["value"] == [{"$bytes": "AP8="}, {"$float": "nan"}]


@pytest.mark.parametrize(
    ("gpus", "resources", "needs"),
    [
        (False, None, Needs(cpus=1.0, gpus=0.0)),
        (True, None, Needs(cpus=1.0, gpus=1.0)),
        (True, {"CPU": 2}, Needs(cpus=2.0, gpus=0.0)),
        (True, {"GPU": 0.5, "memory": 2e9}, Needs(cpus=1.0, gpus=0.5, memory_bytes=2_000_000_000)),
    ],
)
async def test_who_asks_for_nothing_gets_a_gpu_if_there_are_any(
    tmp_path: Path, gpus: bool, resources: Any, needs: Needs
) -> None:
    one = gateway(tmp_path, RulesByName(MAY), WorkOnCall(lambda script: 1), gpus=gpus)
    await one.functions()["run_python"]("1", resources=resources, context=ADA)
    assert one.rules.entries[0].ask.needs == needs


@pytest.mark.parametrize(
    ("asked_s", "allowed_s", "given_s"), [(None, 3600.0, 600.0), (None, 60.0, 60.0), (50.0, 60.0, 50.0)]
)
async def test_time_is_within_the_callers_limits(
    tmp_path: Path, asked_s: float | None, allowed_s: float, given_s: float
) -> None:
    one = made(tmp_path, timeout_s=allowed_s)
    asked = asyncio.create_task(one.functions()["run_python"]("1", timeout_s=asked_s, context=ADA))
    arrived = await one.work.arrived.get()
    assert arrived.needs is not None
    assert arrived.needs.timeout_s == given_s
    arrived.end.set_result(None)
    assert (await asked)["ok"]


async def test_too_much_time_and_too_large_results_are_refused(tmp_path: Path) -> None:
    one = made(tmp_path, WorkOnCall(lambda script: b"x" * 100), timeout_s=60.0, payload_bytes=50)
    run = one.functions()["run_python"]
    codes = [(await run("1", **more, context=ADA))["error"]["code"] for more in ({"timeout_s": 61}, {})]
    assert codes == ["limit", "too_large"]
    assert [entry.outcome for entry in one.rules.entries] == codes


async def test_a_published_function_has_its_own_needs(tmp_path: Path) -> None:
    one = made(tmp_path, WorkOnCall(signatures=[BLUR]))
    asked = asyncio.create_task(one.functions()["call"]("blur", {"sigma": 2}, context=ADA))
    arrived = await one.work.arrived.get()
    assert (arrived.what, arrived.needs) == (("blur", {"sigma": 2}), BLUR.needs)
    arrived.end.set_exception(CallError(Code.FAILED, "sigma is too small"))
    assert (await asked)["error"] == {"code": "failed", "message": "sigma is too small"}


@pytest.mark.parametrize(
    ("asked", "needs"),
    [
        ({"resources": {"CPU": 0.001}}, Needs(2.0, 1.0, 10**9, 30.0)),
        ({"resources": {"CPU": 3, "memory": 5}, "timeout_s": 20}, Needs(3.0, 1.0, 10**9, 20.0)),
        ({"resources": {"GPU": 2, "memory": 4e9}}, Needs(2.0, 2.0, 4 * 10**9, 30.0)),
        ({"timeout_s": 5}, Needs(2.0, 1.0, 10**9, 5.0)),
    ],
)
async def test_a_caller_may_ask_for_more_than_a_function_needs_and_never_for_less(
    tmp_path: Path, asked: dict[str, Any], needs: Needs
) -> None:
    blur = replace(BLUR, needs=Needs(cpus=2.0, gpus=1.0, memory_bytes=10**9, timeout_s=30.0))
    one = made(tmp_path, WorkOnCall(signatures=[blur]))
    calling = asyncio.create_task(one.functions()["call"]("blur", context=ADA, **asked))
    arrived = await one.work.arrived.get()
    assert arrived.needs == needs
    arrived.end.set_result(1)
    assert (await calling)["ok"]


async def test_a_functions_time_is_not_the_callers_to_lengthen(tmp_path: Path) -> None:
    call = made(tmp_path, WorkOnCall(signatures=[BLUR])).functions()["call"]
    refused = (await call("blur", timeout_s=31, context=ADA))["error"]
    assert refused == {"code": "limit", "message": "blur may take 30 s; 31 s are asked for"}


async def test_functions_are_asked_for_now_and_then_and_only_who_may_call_learns_why_not(
    tmp_path: Path,
) -> None:
    answers: list[Any] = [[BLUR], CallError(Code.UNAVAILABLE, "the head does not answer"), [BLUR]]

    class Asked(WorkOnCall):
        async def functions(self) -> Any:
            found = answers.pop(0)
            if isinstance(found, CallError):
                raise found
            return found

    one = made(tmp_path, Asked())
    call = one.functions()["call"]
    for code in ("invalid", "unavailable", "invalid"):
        for _ in range(3):
            assert (await call("none such", context=ADA))["error"]["code"] == code
            assert (await call("none such", context=STRANGER))["error"]["code"] == "not_allowed"
        one.now[0] += 6.0
    assert answers == []


async def test_only_functions_that_one_may_call_are_listed(tmp_path: Path) -> None:
    secret = Signature("secret", "", {}, "None", Needs())
    one = made(tmp_path, WorkOnCall(signatures=[BLUR, secret]))
    listed = await one.functions()["functions"](context=ADA)
    assert [each["name"] for each in listed["value"]] == ["blur"]
    assert listed["value"][0]["needs"]["cpus"] == 2.0


async def test_a_stream_tells_progress_and_ends_with_the_answer(tmp_path: Path) -> None:
    one = made(tmp_path)
    stream = await one.functions()["run_python"]("1", stream=True, context=ADA)
    parts = [await anext(stream)]
    arrived = await one.work.arrived.get()
    arrived.say("waiting for a node: Slurm, Priority")
    parts.append(await anext(stream))
    arrived.say("running")
    assert one.rules.entries[0].lines == ["waiting for a node: Slurm, Priority", "running"]
    arrived.end.set_result(7)
    parts += [part async for part in stream]
    assert [part.get("progress", part.get("value")) for part in parts] == [
        "accepted",
        "waiting for a node: Slurm, Priority",
        "running",
        7,
    ]


async def test_a_refusal_ends_a_stream_too(tmp_path: Path) -> None:
    stream = await made(tmp_path).functions()["run_python"]("1", stream=True, context=STRANGER)
    assert [part async for part in stream][-1]["error"]["code"] == "not_allowed"


async def test_who_looks_later_gets_the_same(tmp_path: Path) -> None:
    one = made(tmp_path)
    run, look = one.functions()["run_python"], one.functions()["progress"]
    begun = await run("1", wait=False, context=ADA)
    assert begun == {"ok": True, "call_id": "c1", "value": {"done": False}}
    arrived = await one.work.arrived.get()
    arrived.say("running")
    seen = (await look("c1", context=ADA))["value"]
    assert seen == {"lines": ["running"], "offset": 8, "done": False, "answer": None}
    looking = asyncio.create_task(look("c1", 8, context=ADA))
    arrived.end.set_result(b"ab")
    answer = (await looking)["value"]["answer"]
    assert answer == {"ok": True, "call_id": "c1", "value": b"ab"}
    assert (await look("c1", context=BOB))["error"]["code"] == "unknown_job"


def test_every_function_is_async_new_and_described(tmp_path: Path) -> None:
    one = made(tmp_path)
    first, second = one.functions(), one.functions()
    names = [name for name, value in first.items() if callable(value)]
    assert len(names) == 12
    for name in names:
        assert inspect.iscoroutinefunction(first[name])
        assert first[name] is not second[name]
        assert first[name].__schema__["parameters"]["type"] == "object"
    assert "script" in first["run_python"].__schema__["parameters"]["required"]


def test_a_tail_keeps_the_end_and_its_offsets() -> None:
    tail = streams.Tail()
    tail.add("a" * streams.TEXT_MAX)
    tail.add("bcd")
    assert (tail.end, len(tail.since(0)), tail.since(streams.TEXT_MAX)) == (
        streams.TEXT_MAX + 3,
        streams.TEXT_MAX,
        "bcd",
    )
