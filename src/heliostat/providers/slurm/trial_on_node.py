"""What `heliostat check --try` runs in a one-minute job: can this node and the head reach each other?

Standard library only, nothing of ours: it takes the bootstrap's place (on_node.py hands it the start
document). It connects to the address where the checking command listens, says what is here, and
waits to be called back at the address that Ray would give for this node.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
from typing import Any

CALL_S = 10.0
NOT_REACHED, NOT_CALLED = 31, 32


def say(text: str) -> None:
    print(f"bootstrap: {text}", flush=True)  # noqa: T201 -- the job's log is all that it has


def ray_version() -> str:
    """Return Ray's version, or why it can't be had."""
    try:
        from importlib.metadata import version

        return version("ray")
    except Exception as error:  # noqa: BLE001 -- whatever is wrong with this Python is what is to be told
        return f"none ({error!r})"


def main() -> int:
    start: dict[str, Any] = json.loads(base64.b64decode(os.environ["HELIOSTAT_START"]))
    host, _, port = str(start["gcs_address"]).rpartition(":")
    with socket.socket() as listening:
        listening.bind((start.get("node_ip") or "", 0))
        listening.listen()
        listening.settimeout(CALL_S)
        here = {
            "secret": start["secret"],
            "node": socket.gethostname(),
            "node_ip": start.get("node_ip"),
            "port": listening.getsockname()[1],
            "python_version": "{}.{}".format(*sys.version_info),
            "ray_version": ray_version(),
            "resources": start["resources"],
        }
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=CALL_S) as head:
                head.sendall(json.dumps(here).encode() + b"\n")
        except OSError as error:
            say(f"{socket.gethostname()} can't reach {host}:{port}, where the head would be: {error}")
            return NOT_REACHED
        try:
            listening.accept()[0].close()
        except OSError:
            say(f"{socket.gethostname()} was not called back at {start.get('node_ip')} within {CALL_S:g} s")
            return NOT_CALLED
    say("this node and the head reach each other")
    return 0


if __name__ == "__main__":
    sys.exit(main())
