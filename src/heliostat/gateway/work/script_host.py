"""Run one caller's script, inside its sandbox. Standard library only: it is carried there as a file,
and an image's Python may be old (3.9 or later).

A parcel comes on standard input: `{"text", "inputs", "result_bytes", "variables", "data_bytes"}`. A parcel
goes to standard output: `{"ok": true, "value"}`, or `{"ok": false, "kind", "message"}` with a kind of
`raised`, `memory`, `large` or `unsendable`. What the script prints goes nowhere. It runs as the user that
runs this, with that user's rights in the sandbox: nothing in here holds it back, and nobody outside trusts
what comes out.
"""

from __future__ import annotations

import os
import re
import resource
import sys
import types

import parcel  # type: ignore[import-not-found]  # its neighbour, wherever both are put

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

NAME = "<script>"
VALUE = "['value']"
MESSAGE_CHARS = 2000
PATH = re.compile(r"(?<![\w:/.])/(?:[^\s/'\":]+/)+")
"""The folders of an absolute path, but not of a web address."""


def main() -> None:
    takes, gives = _own_streams()
    gives.write(_answer(takes))
    gives.close()
    # Threads that the script has left behind are not waited for.
    os._exit(0)


def _own_streams() -> tuple[BinaryIO, BinaryIO]:
    """Take both streams away from the script: what it reads is empty, what it prints goes nowhere."""
    takes, gives = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    return takes, gives


def _limit_data(data_bytes: int | None) -> None:
    # A script that asks for too much at once hears of it as a MemoryError, which says more than being killed.
    if data_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (data_bytes, data_bytes))


def _answer(takes: BinaryIO) -> bytes:
    try:
        order = parcel.unpack(takes.read(), writable=True)
    except ImportError as error:
        return _failed("raised", f"an array was given, and numpy is not in the sandbox ({error.msg})")
    except MemoryError:
        return _failed("memory", "")
    _limit_data(order["data_bytes"])
    os.environ.update(order["variables"])
    # This folder is ours, not the script's.
    sys.path[0] = os.getcwd()
    return _ran(order)


def _ran(order: dict[str, Any]) -> bytes:
    try:
        value = _result(order["text"], order["inputs"])
        packed: bytes = parcel.pack({"ok": True, "value": value})
    except parcel.NotSendable as error:
        return _failed("unsendable", f"`result` can't be sent: {error.inside(VALUE)}")
    except MemoryError:
        return _failed("memory", "")
    except SystemExit as error:
        return _failed("raised", f"the script ended itself with exit code {error.code}")
    except BaseException as error:  # noqa: BLE001 -- whatever the caller's code raises
        return _failed("raised", told(error))
    if len(packed) > order["result_bytes"]:
        return _failed("large", f"`result` takes {len(packed)} bytes, {order['result_bytes']} are allowed")
    return packed


def _result(text: str, inputs: dict[str, Any]) -> Any:
    # Its own `__main__`, so that what it defines can be handed to processes that it forks.
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    names = module.__dict__
    names.update(inputs)
    try:
        exec(compile(text, NAME, "exec"), names)  # noqa: S102 -- running scripts is what this is for
    except SystemExit as error:
        if error.code not in {None, 0}:
            raise
    return names.get("result")


def _failed(kind: str, message: str) -> bytes:
    found: bytes = parcel.pack({"ok": False, "kind": kind, "message": message[:MESSAGE_CHARS]})
    return found


def told(error: BaseException) -> str:
    """Return an exception in one line: its type, its words without folders, and the script's own line."""
    words = " ".join(PATH.sub("…/", _words(error)).split())
    line = _line(error)
    return f"{type(error).__name__}{': ' if words else ''}{words}{f' (line {line})' if line else ''}"


def _words(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return error.msg
    try:
        return str(error)
    except Exception:  # noqa: BLE001 -- the caller's own exception may have a broken __str__
        return ""


def _line(error: BaseException) -> int | None:
    """Return the last line of the script itself that the exception passed through."""
    if isinstance(error, SyntaxError) and error.filename == NAME:
        return error.lineno
    found, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == NAME:
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


if __name__ == "__main__":
    main()
