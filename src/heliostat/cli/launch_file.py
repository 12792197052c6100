"""What `up` hands to the head's wrapper: `launch.json` in the state folder, for its user's eyes only.

We write no secret into it; what a person has written into the commands of a setup is in it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from heliostat.ports.errors import HeliostatError

NAME = "launch.json"


@dataclass(frozen=True)
class LaunchFile:
    """How to start the head and the controller.

    `attached_pid` and `attached_ticks` name the foreground `up` whose end ends the
    cluster; 0 for a detached one. Where that is on another host, it touches `attached_file`
    again and again instead; empty for a detached one. `head_environment` is the head's alone; all else both
    children have from the wrapper's own environment, where tokens and passwords stay. `head_setup` is
    done before the head starts, within `head_setup_s` (docs/bootstrap.md; empty: nothing).
    """

    head_argv: list[str]
    head_environment: dict[str, str]
    head_temp_dir: str
    address: str
    cluster_uid: str
    runtime_dir: str
    log_dir: str
    attached_pid: int = 0
    attached_ticks: int = 0
    attached_file: str = ""
    idle_after_s: float | None = None
    head_setup: dict[str, object] = field(default_factory=dict)
    head_setup_s: float = 300.0

    def write(self, folder: Path) -> None:
        temporary = folder / f"{NAME}.new"
        # One that a crash has left may have another mode.
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=1)
        os.replace(temporary, folder / NAME)

    @classmethod
    def read(cls, folder: Path) -> LaunchFile:
        """Return what is there; keys of another version are passed over. Raises HeliostatError."""
        path = folder / NAME
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            known = {one.name for one in fields(cls)}
            return cls(**{key: value for key, value in found.items() if key in known})
        except OSError as error:
            raise HeliostatError(f"{path} can't be read: {error.strerror}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise HeliostatError(
                f"{path} is damaged ({error}): take the cluster down and up again"
            ) from error

    @staticmethod
    def remove(folder: Path) -> None:
        (folder / NAME).unlink(missing_ok=True)
