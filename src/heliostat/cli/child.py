"""A command of the user's, run in the foreground: signals reach it once, its exit code is kept."""

from __future__ import annotations

import errno
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence

from heliostat.ports.errors import HeliostatError

FORWARDED = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
POLL_S = 1.0
SI_KERNEL = 0x80
"""`si_code` of a signal that the terminal sent: its whole process group has it already."""

NOT_FOUND_CODE = 127
NOT_EXECUTABLE_CODE = 126


class NotStarted(HeliostatError):
    """The command can't be run; `exit_code` is the one that a shell would give."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run `argv` and return its exit code, 128 + N if signal N ended it. Main thread only.

    TERM, HUP, QUIT and INT are passed on to it rather than ending us, so that the caller
    can always clean up after it.
    """
    watched = FORWARDED | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    try:
        child = _start(argv, environment, before)
        while (code := child.poll()) is None:
            _pass_on_next(child, watched)
    finally:
        # A Ctrl-C that came in the last moment was for the command; it must not end us now.
        while signal.sigtimedwait(watched, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return code if code >= 0 else 128 - code


def _start(
    argv: Sequence[str], environment: Mapping[str, str], mask: Iterable[int]
) -> subprocess.Popen[bytes]:
    def with_our_former_mask() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    try:
        # We have one thread here; without this the command would never get a signal.
        return subprocess.Popen(list(argv), env=dict(environment), preexec_fn=with_our_former_mask)  # noqa: PLW1509
    except OSError as error:
        missing = error.errno == errno.ENOENT
        code = NOT_FOUND_CODE if missing else NOT_EXECUTABLE_CODE
        raise NotStarted(f"{argv[0]} can't be run: {error.strerror}", exit_code=code) from error


def _pass_on_next(child: subprocess.Popen[bytes], watched: Iterable[int]) -> None:
    found = signal.sigtimedwait(watched, POLL_S)
    if found is None or found.si_signo == signal.SIGCHLD:
        return
    from_terminal = found.si_code == SI_KERNEL
    if not from_terminal:
        child.send_signal(found.si_signo)
