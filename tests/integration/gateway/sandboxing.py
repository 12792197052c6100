"""Scripts in real sandboxes on this machine, started as a node starts them, without Ray."""

from __future__ import annotations

import functools
import secrets
import shutil
import subprocess
import tempfile
from importlib import resources
from typing import Any

import pytest

from heliostat.gateway.work import on_node
from heliostat.gateway.work.outcomes import done
from heliostat.gateway.work.parcel import pack
from heliostat.gateway.work.port import Done, Needs
from heliostat.gateway.work.sandbox import Ask, command, environment
from tests.packages import lacking

CARRIED = ("script_host.py", "parcel.py")
RESULT_BYTES = 2**24


@functools.cache
def why_not(kind: str) -> str:
    """Return why this machine has no such sandbox, empty where it has one."""
    if kind == "none":
        return ""
    # Debian has bubblewrap; apptainer is for whoever has it.
    if kind == "bwrap" and lacking(["bwrap"], ["bubblewrap"]):
        return "bwrap is not here; on a Debian: apt-get install bubblewrap"
    if shutil.which(kind) is None:
        return f"{kind} is not installed"
    if kind != "bwrap":
        return ""
    probe = ["bwrap", "--ro-bind", "/", "/", "--unshare-net", "--unshare-pid", "true"]
    found = subprocess.run(probe, capture_output=True, text=True, timeout=20, check=False)
    return f"bwrap can't be used here: {found.stderr.strip()}" if found.returncode else ""


def source_of(name: str) -> str:
    return (resources.files("heliostat.gateway.work") / name).read_text("utf-8")


def order_of(text: str, kind: str, **given: Any) -> tuple[dict[str, Any], bytes]:
    """Return what a keeper takes."""
    base = f"{tempfile.gettempdir()}/hel-call-{secrets.token_hex(8)}"
    memory_bytes = given.get("memory_bytes", 2**30)
    body = pack(
        {
            "text": text,
            "inputs": given.get("inputs", {}),
            "variables": given.get("variables", {}),
            "result_bytes": given.get("result_bytes", RESULT_BYTES),
            "data_bytes": given.get("data_bytes"),
        }
    )
    ask = Ask(kind, base, cpus=1.0, gpus=0.0, image=given.get("image"))
    node = on_node.found_node(ask)
    order = {
        "base": base,
        "code": {name: source_of(name) for name in CARRIED},
        "argv": command(ask, node),
        "environment": environment(ask, node),
        "timeout_s": given.get("timeout_s", 30.0),
        "memory_bytes": memory_bytes,
        "result_bytes": RESULT_BYTES + 2**20,
        "input_bytes": len(body),
    }
    return order, body


def run(text: str, kind: str, **given: Any) -> Done:
    """Run a script to its end; raises CallError as a caller gets it. Nothing of it stays behind."""
    order, body = order_of(text, kind, **given)
    outcome = on_node.keep(source_of("keeper.py"), order, body)
    needs = Needs(timeout_s=order["timeout_s"])
    try:
        return done(outcome, needs, order["memory_bytes"])
    finally:
        assert outcome["end"] != "lost"


def skip_without(kind: str) -> None:
    reason = why_not(kind)
    if reason:
        pytest.skip(reason)
