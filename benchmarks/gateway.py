"""How much the gateway adds to a call: its `hello` against a function of a bare hypha-rpc service, same run.

    python benchmarks/gateway.py [--calls 200] [--json]

Prints hello_ms and bare_ms (medians), their p95s, and over_ms (the median of the differences of
neighbouring calls); http_hello_ms and http_bare_ms are the same over plain HTTP, on one connection.
Calls of both kinds alternate, so that a noisy machine hits both. The server is a real one on loopback,
the one of the tests (`make integration` installs it), and so are the rules. What is behind them is not asked.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import end_on_term, p95
from heliostat.cli.system import SystemClock
from heliostat.gateway.hypha.connection import Place, connect
from heliostat.gateway.rules.gate import open_gate
from heliostat.model.gateway import Allowance, GatewaySettings, Right
from tests.gateway_parts import WorkOnCall, gateway
from tests.hypha_server import HyphaServer, hypha_server_in, why_missing

OWNER = "owner"
ADA = Allowance(people=frozenset({"ada@example.org"}), rights=frozenset({Right.CALL}))
WARM_UP = 20
Timed = Callable[[], Awaitable[Any]]


async def bare(context: Any = None) -> dict[str, Any]:
    """Answer with what `hello` answers, and do nothing else."""
    user = context["user"]
    you = {"name": user["email"], "id": user["id"], "workspace": context["ws"]}
    return {"ok": True, "call_id": "c1", "value": {"you": you, "gateway": {"cluster": "demo"}}}


async def alternating(first: Timed, second: Timed, *, calls: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds of each call of both."""
    took: tuple[list[float], list[float]] = ([], [])
    for at in range(calls + WARM_UP):
        for function, times in zip((first, second), took, strict=True):
            begun_s = time.perf_counter()
            answer = await function()
            ms = (time.perf_counter() - begun_s) * 1000
            assert answer["ok"], answer
            if at >= WARM_UP:
                times.append(ms)
    return took


def over_http(server: HyphaServer, service_id: str, function: str) -> Timed:
    workspace, _, name = service_id.partition("/")
    path = f"/{workspace}/services/{name}/{function}"
    headers = {"Authorization": f"Bearer {server.token('ada')}"}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)

    def ask() -> Any:
        connection.request("GET", path, headers=headers)
        return json.load(connection.getresponse())

    return lambda: asyncio.to_thread(ask)


async def measure(server: HyphaServer, folder: Path, *, calls: int) -> dict[str, float]:
    import hypha_rpc

    gate = open_gate(GatewaySettings(server.url, (ADA,)), folder, now_s=SystemClock().now_s)
    parts = gateway(folder, cast("Any", gate), WorkOnCall())
    ours = await connect(Place(server.url, "gateway"), server.token(OWNER))
    gate.workspace = ours.workspace
    plain = await hypha_rpc.connect_to_server(
        {"server_url": server.url, "token": server.token(OWNER), "client_id": "bare", "logger": None}
    )
    caller = await hypha_rpc.connect_to_server(
        {"server_url": server.url, "token": server.token("ada"), "logger": None}
    )
    try:
        gateway_id = await ours.register(parts.services.definition("heliostat"))
        config = {"visibility": "unlisted", "require_context": True}
        bare_id = (await plain.register_service({"id": "bare", "config": config, "hello": bare}))["id"]
        services = [await caller.get_service(one) for one in (gateway_id, bare_id)]
        rpc = await alternating(services[0].hello, services[1].hello, calls=calls)
        ways = [over_http(server, one, "hello") for one in (gateway_id, bare_id)]
        web = await alternating(ways[0], ways[1], calls=calls)
    finally:
        for one in (caller, plain):
            await one.disconnect()
        await ours.aclose()
        gate.close()
    return figures("", *rpc) | figures("http_", *web)


def figures(prefix: str, hello: list[float], plain: list[float]) -> dict[str, float]:
    over = statistics.median(one - other for one, other in zip(hello, plain, strict=True))
    return {
        f"{prefix}hello_ms": round(statistics.median(hello), 3),
        f"{prefix}hello_p95_ms": round(p95(hello), 3),
        f"{prefix}bare_ms": round(statistics.median(plain), 3),
        f"{prefix}bare_p95_ms": round(p95(plain), 3),
        f"{prefix}over_ms": round(over, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    end_on_term()
    why = why_missing()
    if why is not None:
        raise SystemExit(why)
    with (
        tempfile.TemporaryDirectory(prefix="hel-bench-") as folder,
        hypha_server_in(Path(folder) / "server") as server,
    ):
        found = asyncio.run(measure(server, Path(folder), calls=options.calls))
    print(
        json.dumps(found) if options.json else "\n".join(f"{key:18} {value}" for key, value in found.items())
    )


if __name__ == "__main__":
    main()
