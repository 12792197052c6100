"""Every example of docs/gateway-http.md, run as it stands against a real Hypha server."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from heliostat.gateway.work.port import Script
from tests.integration.gateway.conftest import Site

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

PAGE = Path(__file__).parents[3] / "docs" / "gateway-http.md"
EXAMPLES = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
RUN_TIMEOUT_S = 60
PRINTED = [
    ('"name":"ada@example.org"', "hello"),
    ('"value":42', "a script"),
    ("ada@example.org\n[2, 4, 6, 8]\n", "an array"),
    ("Float32Array(5) [ 0, 0.25, 0.5, 0.75, 1 ]\n", "an array"),
    ("499500\n", "a long call"),
    ("accepted\n[1. 1. 1.]\n", "a stream"),
]
PROGRAMS = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}


def run_here(script: Script) -> Any:
    """Stand for the cluster: run a script of this page, whose author is trusted."""
    names = dict(script.inputs)
    exec(script.text, names)  # noqa: S102
    return names["result"]


def test_every_example_is_expected() -> None:
    languages = [language for language, _ in EXAMPLES]
    assert languages == ["sh", "sh", "python", "javascript", "javascript", "python"]


@pytest.mark.parametrize(
    "at",
    range(len(EXAMPLES)),
    ids=[f"{kind}-{of}" for (kind, _), (_, of) in zip(EXAMPLES, PRINTED, strict=True)],
)
async def test_an_example_runs(site: Site, tmp_path: Path, at: int) -> None:
    (language, text), (printed, _) = EXAMPLES[at], PRINTED[at]
    site.parts.work.run = run_here
    if language == "javascript":
        node = shutil.which("node")
        if node is None:
            pytest.skip("there is no node on PATH")
        (tmp_path / "example.mjs").write_text(text)
        command = [node, str(tmp_path / "example.mjs")]
    else:
        command = [*PROGRAMS[language], text]
    process = await asyncio.create_subprocess_exec(
        *command,
        env=os.environ | variables(site),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), RUN_TIMEOUT_S)
    assert (process.returncode, err.decode()) == (0, "")
    assert printed in out.decode()


def variables(site: Site) -> dict[str, str]:
    workspace, _, name = site.service_id.partition("/")
    return {
        "HYPHA_SERVER": site.server.url,
        "GATEWAY": f"{workspace}/services/{name}",
        "HYPHA_TOKEN": site.server.token("ada"),
    }
