"""What is done on a host before Ray starts there: files copied in place, then commands, one after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SYNC_AGAIN_S = 30
"""How often `file_mounts_sync_continuously` copies again what has changed."""


@dataclass(frozen=True)
class Command:
    """One command of bash; `key` is where the file has it, such as `setup_commands.0`."""

    key: str
    text: str


@dataclass(frozen=True)
class Mount:
    """`local` is copied to `remote`: an absolute path, which `~` may begin (the home folder there)."""

    remote: str
    local: str


@dataclass(frozen=True)
class Setup:
    """The steps of one kind of host, in Ray's order: mounts, initialization, commands.

    `synced` must be there already, on a file system that the hosts share. `exclude` and `ignore_files` are
    Ray's `rsync_exclude` and `rsync_filter`. `initialization` runs outside of any container.
    """

    mounts: tuple[Mount, ...] = ()
    synced: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    ignore_files: tuple[str, ...] = ()
    continuously: bool = False
    initialization: tuple[Command, ...] = ()
    commands: tuple[Command, ...] = ()

    def document(self) -> Mapping[str, object]:
        """Return the bootstrap's `setup` (docs/bootstrap.md), plain JSON values; empty: nothing is done."""
        if not (self.mounts or self.synced or self.initialization or self.commands):
            return {}
        options = [f"--exclude={one}" for one in self.exclude]
        options += [f"--filter=dir-merge,- {one}" for one in self.ignore_files]
        return {
            "mounts": [[one.remote, one.local] for one in self.mounts],
            "synced": list(self.synced),
            "rsync": options if self.mounts else [],
            "again_s": SYNC_AGAIN_S if self.continuously and self.mounts else None,
            "initialization": [[one.key, one.text] for one in self.initialization],
            "commands": [[one.key, one.text] for one in self.commands],
        }


NO_SETUP = Setup()
