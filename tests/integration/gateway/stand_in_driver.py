"""A driver without a cluster: it speaks as the real one does, and does what each request's text says."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from heliostat.gateway.work import driver_pipes
from heliostat.gateway.work.frames import Broken, Frames
from heliostat.gateway.work.parcel import pack, unpack


async def answer(frames: Frames, number: int, op: str, args: dict[str, Any]) -> None:
    said = args.get("task", {}).get("call_id", "")
    if op == "script":
        await frames.send(pack({"n": number, "began": {"node_id": "n1"}}))
        if said == "die":
            os._exit(3)
        if said == "environment":
            names = pack({"ok": True, "value": sorted(os.environ)})
            await frames.send(pack({"n": number, "outcome": {"end": "ended", "result": names, "ran_s": 1.0}}))
            return
        if said == "wait":
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                Path(os.environ["STAND_IN_NOTE"]).write_text("cancelled\n")
                raise
        result = pack({"ok": True, "value": unpack(args["task"]["body"])["inputs"]})
        await frames.send(pack({"n": number, "outcome": {"end": "ended", "result": result, "ran_s": 1.0}}))
    else:
        await frames.send(
            pack({"n": number, "value": {"open_log": 1, "functions": [], "next_lines": None}.get(op, True)})
        )


async def main() -> None:
    frames = await driver_pipes.frames(driver_pipes.taken())
    unpack(await frames.receive())
    if "fail" in sys.argv:
        sys.exit(1)
    await frames.send(pack({"ready": True, "trouble": ""}))
    tasks: dict[int, asyncio.Task[None]] = {}
    try:
        while True:
            message = unpack(await frames.receive())
            if message["op"] == "cancel":
                if message["n"] in tasks:
                    tasks[message["n"]].cancel()
            else:
                tasks[message["n"]] = asyncio.create_task(
                    answer(frames, message["n"], message["op"], message["args"])
                )
    except Broken:
        sys.exit(0)


if __name__ == "__main__":
    asyncio.run(main())
