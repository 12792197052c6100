"""Runs on the head's host for a command elsewhere: requests as lines on standard input, answers on output.

    python -m heliostat.api.relay SOCKET

A request is `{"method", "path", "body", "timeout_s"}`; its answer `{"status", "body"}`, or
`{"error": "nobody" | "timeout" | "broken", "text"}`. The first line says hello. It ends with its input.
"""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Mapping
from typing import Any

from heliostat.api.transport import HELLO, NobodyListens, SocketTransport


def answer(request: Mapping[str, Any], way: SocketTransport) -> dict[str, object]:
    """Return the answer to one request, or why there is none."""
    body = request.get("body")
    try:
        status, found = way.exchange(
            request["method"],
            request["path"],
            body=None if body is None else body.encode(),
            timeout_s=float(request["timeout_s"]),
        )
        return {"status": status, "body": found.decode()}
    except NobodyListens as error:
        return {"error": "nobody", "text": str(error)}
    except TimeoutError as error:
        return {"error": "timeout", "text": str(error)}
    except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
        return {"error": "broken", "text": f"{type(error).__name__}: {error}"}


def main() -> None:
    way = SocketTransport(sys.argv[1])
    _write(HELLO)
    for line in sys.stdin:
        _write(answer(json.loads(line), way))


def _write(value: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
