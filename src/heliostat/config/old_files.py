"""Files of the older Ray-on-Slurm providers, read as if they were written for this one.

Such a file names no `backends`: it means Slurm, and this machine for a head with `under_slurm: 0`. Each of
its keys becomes its successor; one that has no meaning any more is a note that names what does its work now.
`heliostat migrate` writes the same down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from heliostat.config.checks import BackendKeys
from heliostat.config.errors import KeyPath, Problem, found
from heliostat.config.positions import Document
from heliostat.config.ray_keys import TYPES

SLURM, LOCAL = "slurm", "local"

PORTS = {"gcs_port": "gcs_port", "ray_client_port": "ray_client_port", "dashboad_port": "dashboard_port"}
"""The old key (with its slip of the pen) → ours."""

NO_MEANING: Mapping[str, str] = {
    "temp_folder_name": (
        "nothing is written there any more; logs of jobs go to provider.backends.slurm.work_dir"
    ),
    "template_path": (
        "templates are not read: write what yours ask for (time_limit, exclusive, …) and do (setup) "
        "under provider.backends.slurm"
    ),
    "head_ip": (
        "the head finds its own address; where it has several, provider.backends.slurm.network names the "
        "network"
    ),
}
"""Keys of the provider, of which `head_ip` may stand in a `node_config` too → what is said."""

TOP_MINIMUM = "Ray does not read it here; write min_workers under a node type"
NODE_KEYS = ("head_node", "under_slurm", "head_ip", "init_commands", "additional_slurm_commands")
PROVIDER_KEYS = (*PORTS, *NO_MEANING)

LOGIN_FILES = (
    "if [ -r /etc/profile ]; then . /etc/profile; fi; for heliostat_file in ~/.bash_profile ~/.bash_login "
    '~/.profile; do if [ -r "$heliostat_file" ]; then . "$heliostat_file"; break; fi; done; true'
)
"""What `bash -l` reads: older job scripts were run by it, and `conda activate` needs it."""

OWN_SHELL = (
    "run before the head in a shell of their own: what they set does not reach it, provider.environment does"
)


@dataclass
class Reading:
    """A file on its way to the new form: `changed` are the keys that are new, and whose place they have."""

    document: Document
    data: dict[str, Any]
    backends: Mapping[str, BackendKeys]
    notes: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    changed: dict[KeyPath, KeyPath] = field(default_factory=dict)

    def note(self, path: KeyPath, text: str) -> None:
        self.notes.append(Problem(self.document.at(path), path, text))

    def problem(self, path: KeyPath, text: str) -> None:
        self.problems.append(Problem(self.document.at(path), path, text))

    def beside(self, old: KeyPath, new: KeyPath) -> None:
        """Tell of an old key whose successor is there as well: nobody can know which is meant."""
        line = self.document.at(new).line
        self.problem(old, f"stands for {new[-1]}, which is there too, on line {line}; keep one of them")


def is_old(data: Mapping[str, Any]) -> bool:
    """Say whether a file is of the old kind: it has such a key, and names no backends."""
    provider = data.get("provider")
    if not isinstance(provider, dict) or "backends" in provider:
        return False
    configs = [one.get("node_config") for _, one in _types(data)]
    return any(key in provider for key in PROVIDER_KEYS) or any(
        key in config for config in configs if isinstance(config, dict) for key in NODE_KEYS
    )


def read_old(document: Document, backends: Mapping[str, BackendKeys]) -> Reading:
    """Return the file in the new form; what is no file of the old kind comes back as it is."""
    reading = Reading(document, _copied(document.data), backends)
    if not is_old(document.data):
        return reading
    data = reading.data
    if "min_workers" in data:
        reading.note(("min_workers",), TOP_MINIMUM)
        del data["min_workers"]
    _provider(reading)
    used = [_node_type(reading, name, one) for name, one in _types(data)]
    data["provider"]["backends"] = {name: {} for name in (LOCAL, SLURM) if name in used or name == SLURM}
    reading.changed["provider", "backends"] = ("provider",)
    reading.document = Document(data, _positions(reading))
    return reading


def _provider(reading: Reading) -> None:
    provider = reading.data["provider"]
    for old, new in PORTS.items():
        if old in provider:
            value = provider.pop(old)
            if new in provider:
                reading.beside(("provider", old), ("provider", new))
                continue
            provider[new] = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
            reading.changed["provider", new] = ("provider", old)
    for key, text in NO_MEANING.items():
        if key in provider:
            reading.note(("provider", key), text)
            del provider[key]


def _node_type(reading: Reading, name: str, one: dict[str, Any]) -> str | None:
    """Bring a node type to the new form; return its backend."""
    config, place = one.get("node_config"), (TYPES, name, "node_config")
    if not isinstance(config, dict):
        return None
    is_head = name == reading.data.get("head_node_type")
    _head_or_not(reading, config, place, is_head=is_head)
    backend = _backend(reading, config, place, is_head=is_head)
    if "head_ip" in config:
        reading.note((*place, "head_ip"), NO_MEANING["head_ip"])
        del config["head_ip"]
    _lines(reading, one, place, backend=backend)
    _init_commands(reading, config, place, backend=backend)
    return backend


def _head_or_not(reading: Reading, config: dict[str, Any], place: KeyPath, *, is_head: bool) -> None:
    value = config.pop("head_node", int(is_head))
    path = (*place, "head_node")
    if value not in (0, 1):
        reading.problem(path, f"{found(value)}; allowed is 0 or 1")
    elif bool(value) != is_head:
        head = reading.data.get("head_node_type")
        reading.problem(path, f"{found(value)}, and head_node_type is {found(head)}: make them agree")


def _backend(reading: Reading, config: dict[str, Any], place: KeyPath, *, is_head: bool) -> str | None:
    path = (*place, "under_slurm")
    value = config.pop("under_slurm", int(not is_head))
    if "backend" in config:
        is_old_too = path in reading.document.positions and value in (0, 1)
        if is_old_too and config["backend"] != (LOCAL, SLURM)[value]:
            reading.beside(path, (*place, "backend"))
            # For what else there may be to say.
            config["backend"] = (LOCAL, SLURM)[value]
        # It says already what the old key did.
        return config["backend"] if isinstance(config["backend"], str) else None
    if value not in (0, 1):
        reading.problem(path, f"{found(value)}; allowed is 0 or 1")
    elif not value and not is_head:
        text = "workers of such a file are Slurm jobs; write backend: local for workers on this machine"
        reading.problem(path, f"{found(value)}: {text}")
        # Its lines are looked at nevertheless: all that is wrong is said at once.
        value = 1
    config["backend"] = SLURM if value else LOCAL
    reading.changed[(*place, "backend")] = path
    return str(config["backend"])


def _lines(reading: Reading, one: dict[str, Any], place: KeyPath, *, backend: str | None) -> None:
    config = one["node_config"]
    path = (*place, "additional_slurm_commands")
    lines = config.pop("additional_slurm_commands", None)
    if lines is None or not _is_texts(reading, lines, path):
        return
    if backend == LOCAL:
        if lines:
            reading.note(path, "this type is no Slurm job, so they have no effect")
        return
    options, notes, wrong = reading.backends.get(SLURM, BackendKeys()).old_lines(lines)
    for index, text in notes:
        reading.note((*path, index), text)
    for index, text in wrong:
        reading.problem((*path, index), f"{found(lines[index])}: {text}")
    _gpus(reading, one, path, asked=options.pop("GPU", None))
    for key, value in options.items():
        if key in config and config[key] != value:
            reading.beside((*path, _line_of(key, lines, reading)), (*place, key))
            continue
        config[key] = value
        reading.changed[(*place, key)] = path


def _line_of(key: str, lines: list[str], reading: Reading) -> int:
    """Return the index of the first line that says the key."""
    read = reading.backends[SLURM].old_lines
    return next(index for index, line in enumerate(lines) if key in read([line])[0])


def _gpus(reading: Reading, one: dict[str, Any], path: KeyPath, *, asked: int | None) -> None:
    """Have the type ask for as many GPUs as its lines did, where its resources say nothing of them."""
    resources = one.get("resources")
    if asked is None or not isinstance(resources, dict):
        return
    own = resources.get("GPU", 0)
    if not own:
        resources["GPU"] = asked
        reading.changed[(*path[:2], "resources", "GPU")] = path
        reading.note(path, f"the job asks for GPUs and resources had none: it has GPU: {asked} now")
    elif own != asked:
        text = f"asks for {asked} GPUs, and resources has {found(own)}: that is what a job asks for"
        reading.note(path, text)


def _init_commands(reading: Reading, config: dict[str, Any], place: KeyPath, *, backend: str | None) -> None:
    path = (*place, "init_commands")
    lines = config.pop("init_commands", None)
    if not lines or not _is_texts(reading, lines, path):
        return
    if backend == SLURM:
        own = config.get("setup") or []
        if not isinstance(own, list):
            # What is wrong with it is said of it.
            return
        setup = (*place, "setup")
        config["setup"] = [LOGIN_FILES, *lines, *own]
        if not own:
            reading.changed[setup] = path
        first = [(*path, index) for index, _ in enumerate(lines)]
        for index, old in enumerate([*first, *((*setup, index) for index, _ in enumerate(own))]):
            reading.changed[(*setup, index + 1)] = old
        return
    if backend != LOCAL:
        # No backend of such a file: that is said of it, and nothing can be meant by the lines.
        return
    if place[1] != reading.data.get("head_node_type"):
        reading.problem(path, "a worker on this machine has none; write worker_setup_commands for its type")
        return
    # A Slurm worker's lines are none of a head's that is here.
    own = reading.data.get("head_setup_commands")
    reading.data["head_setup_commands"] = [*(own if isinstance(own, list) else []), _one_command(lines)]
    if not own:
        reading.changed["head_setup_commands",] = path
    reading.note(path, OWN_SHELL)


def _one_command(lines: list[str]) -> str:
    """Return lines that were one script as one command, so that they see one another's variables."""
    return "\n".join([LOGIN_FILES, *lines])


def _is_texts(reading: Reading, value: object, path: KeyPath) -> bool:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return True
    reading.problem(path, f"{found(value)}; allowed is a list of text")
    return False


def _positions(reading: Reading) -> dict[KeyPath, Any]:
    """Return the old file's places, with those of the keys that took the place of others."""
    taken = {new: reading.document.at(old) for new, old in reading.changed.items()}
    return {**reading.document.positions, **taken}


def _types(data: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    types = data.get(TYPES)
    for name, one in types.items() if isinstance(types, dict) else ():
        if isinstance(one, dict):
            yield name, one


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list) else value
