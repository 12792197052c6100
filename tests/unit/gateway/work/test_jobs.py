"""Jobs through Ray's client: what it is asked, what its errors become, and logs that are pulled."""

from __future__ import annotations

import asyncio
import shlex
import threading
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import AuthenticationError, NodeDiedError

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.work.jobs import LOG_IDLE_S, Jobs, timed
from heliostat.gateway.work.port import Needs


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heliostat.gateway.work.jobs.LOG_LOOK_S", 0.001)


class Client:
    """Ray's client, as far as it is used."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.submitted: dict[str, Any] = {}
        self.log = b""
        self.node = "n1"
        self.state = "RUNNING"
        self.looks = 0

    def submit_job(self, **asked: Any) -> str:
        self._fail()
        self.submitted = asked
        return str(asked["submission_id"])

    def get_job_info(self, job_id: str) -> Any:
        self._fail()
        return SimpleNamespace(
            status=SimpleNamespace(value=self.state, is_terminal=lambda: self.state != "RUNNING"),
            driver_node_id=self.node,
            message="Job is running.",
            metadata={"entrypoint": "python train.py"},
            entrypoint="timeout …",
            start_time=1_790_000_000_500,
            end_time=None,
        )

    def stop_job(self, job_id: str) -> bool:
        self._fail()
        return True

    async def read(self, node_id: str, job_id: str, offset: int) -> bytes:
        self.looks += 1
        assert (node_id, job_id) == ("n1", "c1")
        if self.error:
            raise self.error
        return self.log[offset : offset + 4]

    def _fail(self) -> None:
        if self.error:
            raise self.error


def jobs_of(client: Client) -> Jobs:
    return Jobs(lambda: client, client.read)


async def test_a_job_is_asked_for_with_what_it_needs_and_its_time() -> None:
    client = Client()
    needs = Needs(cpus=2.0, gpus=1.0, memory_bytes=2**30, timeout_s=60.0)
    job_id = await jobs_of(client).submit("c1", "echo 'a b'", runtime_env=None, needs=needs)
    assert job_id == "c1"
    assert client.submitted["submission_id"] == "c1"
    assert shlex.split(client.submitted["entrypoint"])[-3:] == ["sh", "-c", "echo 'a b'"]
    assert client.submitted["entrypoint_num_gpus"] == 1.0
    assert client.submitted["entrypoint_memory"] == 2**30


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("Request failed with status code 500: Traceback /home/ada", Code.LOST),
        ("('Connection aborted.', RemoteDisconnected())", Code.LOST),
        ("NewConnectionError: Failed to establish a new connection: [Errno 111]", Code.UNAVAILABLE),
        ("Request failed with status code 400: no", Code.INVALID),
    ],
)
async def test_a_submit_that_broke_off_may_have_acted(words: str, code: Code) -> None:
    with pytest.raises(CallError) as found:
        await jobs_of(Client(RuntimeError(words))).submit("c1", "ls", runtime_env=None, needs=Needs())
    assert found.value.code is code


async def code_of(asked: Awaitable[Any]) -> Code:
    with pytest.raises(CallError) as found:
        await asked
    return found.value.code


async def test_while_a_submit_may_still_arrive_its_job_is_not_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_go_on = threading.Event()

    class Slow(Client):
        def submit_job(self, **asked: Any) -> str:
            may_go_on.wait(10)
            return super().submit_job(**asked)

        def get_job_info(self, job_id: str) -> Any:
            if not self.submitted:
                raise RuntimeError("Request failed with status code 404")
            return super().get_job_info(job_id)

    client = Slow()
    jobs = jobs_of(client)
    # Which makes the client, too.
    assert await code_of(jobs.status("c1")) is Code.UNKNOWN_JOB
    with monkeypatch.context() as short:
        short.setattr("heliostat.gateway.work.jobs.CALL_TIMEOUT_S", 0.01)
        submitting = jobs.submit("c1", "ls", runtime_env=None, needs=Needs())
        assert await code_of(submitting) is Code.LOST
    assert await code_of(jobs.status("c1")) is Code.LOST
    assert await code_of(jobs.status("c2")) is Code.UNKNOWN_JOB
    may_go_on.set()
    async with asyncio.timeout(10):
        while not client.submitted:
            await asyncio.sleep(0.001)
    assert (await jobs.status("c1"))["state"] == "running"


def test_time_is_kept_where_the_job_runs() -> None:
    assert timed("sleep 9", 2.5) == "timeout --kill-after=10 2.5 sh -c 'sleep 9'"


async def test_a_status_is_plain() -> None:
    found = await jobs_of(Client()).status("c1")
    assert found == {
        "job_id": "c1",
        "state": "running",
        "message": "Job is running.",
        "entrypoint": "python train.py",
        "started_at_s": 1_790_000_000.5,
        "ended_at_s": None,
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("Request failed with status code 404: job c1 does not exist."), Code.UNKNOWN_JOB),
        (RuntimeError("Request failed with status code 400: /home/ada/x"), Code.INVALID),
        (RuntimeError("Request failed with status code 500: Traceback /home/ada"), Code.UNAVAILABLE),
        (ConnectionError("Failed to connect to Ray at http://127.0.0.1:8265"), Code.UNAVAILABLE),
        (TimeoutError(), Code.LOST),
        (AuthenticationError("Invalid token"), Code.UNAVAILABLE),
        (ValueError("runtime_env /home/ada"), Code.INVALID),
    ],
)
async def test_errors_are_typed_and_say_nothing_of_the_owner(error: Exception, code: Code) -> None:
    with pytest.raises(CallError) as found:
        await jobs_of(Client(error)).stop("c1")
    assert found.value.code is code
    assert "/" not in found.value.message


async def test_a_client_that_could_not_be_made_is_made_later() -> None:
    made = iter([ConnectionError("not yet"), Client()])

    def connect() -> Client:
        found = next(made)
        if isinstance(found, Exception):
            raise found
        return found

    jobs = Jobs(connect, Client().read)
    with pytest.raises(CallError):
        await jobs.stop("c1")
    assert await jobs.stop("c1")


async def test_lines_are_pulled_until_the_end() -> None:
    client = Client()
    jobs = jobs_of(client)
    number = await jobs.open_log("c1")
    client.log = "aö\nbö\n".encode()
    first = await jobs.next_lines(number)
    client.state = "SUCCEEDED"
    assert [first, await jobs.next_lines(number)] == ["aö\n", "bö\n"]
    assert await jobs.next_lines(number) is None
    with pytest.raises(CallError, match="ask for it anew"):
        await jobs.next_lines(number)


async def test_a_character_in_two_pieces_stays_whole() -> None:
    client = Client()
    client.log, client.state = "aaaö".encode(), "SUCCEEDED"
    jobs = jobs_of(client)
    number = await jobs.open_log("c1")
    assert [await jobs.next_lines(number) for _ in range(3)] == ["aaa", "ö", None]


async def test_a_reader_that_is_cancelled_loses_no_line() -> None:
    client = Client()
    jobs = jobs_of(client)
    number = await jobs.open_log("c1")
    waiting = asyncio.create_task(jobs.next_lines(number))
    while not client.looks:
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    client.log = b"a\n"
    assert await jobs.next_lines(number) == "a\n"
    await jobs.close_log(number)


@pytest.mark.parametrize("error", [NodeDiedError("gone"), TimeoutError()])
async def test_a_log_whose_node_is_gone_is_lost(error: Exception) -> None:
    client = Client()
    jobs = jobs_of(client)
    number = await jobs.open_log("c1")

    async def gone(node_id: str, job_id: str, offset: int) -> bytes:
        raise error

    jobs._read_log = gone
    with pytest.raises(CallError, match="its node is gone") as found:
        await jobs.next_lines(number)
    assert found.value.code is Code.LOST


async def test_a_log_that_nobody_reads_is_closed() -> None:
    client = Client()
    jobs = jobs_of(client)
    number = await jobs.open_log("c1")
    client.log = b"a\n"
    await jobs.next_lines(number)
    jobs._logs[number].idle_since_s = asyncio.get_running_loop().time() - LOG_IDLE_S - 1
    await jobs.close_idle_logs()
    with pytest.raises(CallError, match="ask for it anew"):
        await jobs.next_lines(number)
