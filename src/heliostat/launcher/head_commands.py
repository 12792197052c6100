"""What a command for the head means here: Ray words some that no shared machine should run. Pure."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass

from heliostat.launcher.asked import Asked, Refused

_QUOTED = re.compile(r"\\.|'[^']*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL)
_BEGIN = (
    r"(?:^|[;&|({!`\n]|\b(?:do|then|else)\s)\s*"
    r"(?:(?:sudo|env|exec|nohup|time|command)(?:\s+(?:-[ug]\s+\S+|-\S+|\w+=\S*))*\s+|\w+=\S*\s+)*"
    r"(?:\S*/s?bin/)?"
)
"""Where one command of a line begins, and the words that may stand before its name."""

_STOP = re.compile(_BEGIN + r"ray\s+stop(?![\w./=-])")
_SHUTDOWN = re.compile(_BEGIN + r"(?:systemctl\s+)?(?:shutdown|poweroff|halt|reboot)(?![\w./=-])")
_MONITOR = re.compile(r"tail -n (\d+) -f /tmp/ray/session_latest/logs/monitor\*")
_SHELL = "$SHELL"


@dataclass(frozen=True)
class HeadCommand:
    """`text` runs in bash beside the head, None is a shell for a person, empty is nothing to run.

    With `then_down` the cluster is taken down when it has ended, however it ended.
    """

    text: str | None
    then_down: bool = False


def understood(text: str, asked: Asked, *, ray_logs: str, stop_words: str) -> HeadCommand:
    """Return what to run for one of Ray's commands.

    `ray_logs` is the folder of Ray's logs beside the head, `stop_words` what Ray appends for
    `--stop`. Raises Refused for what would harm others on a shared machine: that is to keep people
    from doing it by mistake, and no wall; what is in quotes, or in a script, is not looked at.
    """
    if text.endswith(stop_words):
        told = understood(
            text.removesuffix(stop_words), asked, ray_logs=ray_logs, stop_words="\0 never twice"
        )
        return HeadCommand(told.text, then_down=True)
    if asked.takes_down:
        # Ray says `ray stop` before it takes the nodes: `heliostat down` ends what is ours, and only that.
        return HeadCommand("")
    commands = _QUOTED.sub("_", text)
    if _STOP.search(commands):
        raise Refused(
            "`ray stop` ends every Ray of yours on that machine, other clusters included; `ray down` takes "
            "this one down"
        )
    if _SHUTDOWN.search(commands):
        raise Refused("the head's machine is not the cluster's to switch off; `ray down` takes it down")
    if text == _SHELL:
        return HeadCommand(None)
    if found := _MONITOR.fullmatch(text.strip()):
        return HeadCommand(f"tail -n {found[1]} -f {shlex.quote(ray_logs)}/monitor*")
    return HeadCommand(_in_place(text, asked))


def submitted_script(asked: Asked) -> str:
    """Return the script of a `ray submit`, empty for other commands."""
    return str(asked.options.get("script") or "") if asked.command == "submit" else ""


def script_target(asked: Asked) -> str:
    """Return where Ray would copy that script: into the home folder, over what has its name there."""
    return os.path.join("~", os.path.basename(submitted_script(asked)))


def _in_place(text: str, asked: Asked) -> str:
    """Let a submitted script run where it lies."""
    script, words = submitted_script(asked), f"python {script_target(asked)}"
    if script and (text == words or text.startswith(f"{words} ")):
        return f"python {shlex.quote(os.path.abspath(script))}{text.removeprefix(words)}"
    return text
