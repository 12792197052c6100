"""A real head, workers with declared slots for groups to grow on, and a driver that is told what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from select import select
from typing import Any

import pytest

from heliostat.model.instance import NodeStatus, RayNode
from heliostat.raylink.gcs import GcsCluster
from tests.integration.raylink.conftest import Head, until
from tests.integration.real_head import end, real_head

ROOT = Path(__file__).parents[3]
ANSWER_S = 60.0


@dataclass
class Driver:
    process: subprocess.Popen[str]
    answers: int
    log: Path
    _rest: str = field(default="", init=False)

    def tell(self, source: str, *, timeout_s: float = ANSWER_S) -> Any:
        """Run lines of Python in the driver; return the last one's value, or fail with its error."""
        self.start(source)
        return self.answer(timeout_s=timeout_s)

    def start(self, source: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(textwrap.dedent(source)) + "\n")
        self.process.stdin.flush()

    def answer(self, *, timeout_s: float = ANSWER_S) -> Any:
        while "\n" not in self._rest:
            ready, _, _ = select([self.answers], [], [], timeout_s)
            text = os.read(self.answers, 65536).decode() if ready else ""
            assert text, f"no answer from the driver:\n{self.log.read_text()[-4000:]}"
            self._rest += text
        line, _, self._rest = self._rest.partition("\n")
        reply = json.loads(line)
        assert "error" not in reply, f"{reply['error']}\n{self.log.read_text()[-4000:]}"
        return reply["value"]


@dataclass
class Grounds:
    """A head, workers that come when they are told to, and what Ray knows of them."""

    head: Head
    stack: ExitStack

    def worker(self, name: str, *, slots: int) -> None:
        """Start a worker; it joins some seconds later."""
        resources = json.dumps({"slot": slots})
        self.stack.enter_context(
            self.head.worker(
                name,
                "--num-cpus=8",
                f"--resources={resources}",
                "--object-store-memory=100000000",
                "--include-log-monitor=false",
            )
        )

    async def node(self, link: GcsCluster, name: str) -> RayNode:
        """Return a worker's node once it has joined."""
        state = await until(
            link.state, lambda state: any(one.instance_id == name for one in state.nodes), timeout_s=60
        )
        return next(one for one in state.nodes if one.instance_id == name)

    async def gone(self, link: GcsCluster, name: str) -> None:
        await until(
            link.state,
            lambda state: all(
                one.status is NodeStatus.DEAD for one in state.nodes if one.instance_id == name
            ),
        )

    @contextmanager
    def driver(self) -> Iterator[Driver]:
        mine, theirs = os.pipe()
        path = self.head.folder / f"driver-{mine}.log"
        environment = {**self.head.environment, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        with path.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.train.interpreter", str(theirs)],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                pass_fds=(theirs,),
                start_new_session=True,
            )
        os.close(theirs)
        driver = Driver(process, mine, path)
        try:
            assert driver.answer() == "ready"
            yield driver
        finally:
            end(process)
            os.close(mine)


@pytest.fixture(scope="module")
def grounds() -> Iterator[Grounds]:
    resources = {"anchor": 1, "object_store_memory": 100 * 2**20}
    with real_head("htr-", resources=resources) as found, ExitStack() as stack:
        head = Head(found.ready, found.token, found.environment, found.folder, found.process)
        yield Grounds(head, stack)


@pytest.fixture
async def link(grounds: Grounds) -> AsyncIterator[GcsCluster]:
    link = grounds.head.cluster()
    await link.connect()
    yield link
    await link.aclose()


@pytest.fixture(scope="module")
def driver(grounds: Grounds) -> Iterator[Driver]:
    grounds.worker("t0", slots=2)
    with grounds.driver() as found:
        yield found
