"""The command lines and environments of sandboxes: none, bubblewrap, apptainer. Pure.

It is used on the nodes, from what `on_node` has found there: standard library only, nothing of ours. Options
are those that bubblewrap 0.4 and apptainer 1.1 know already.

What each keeps from a script:
- `none`: nothing but the environment. It can do whatever the owner's account can.
- `bwrap`: it sees the system's programs, this Python, and its own folders, all but the latter read-only. No
  home, no other folder that the owner may write, no network, no process but its own, no GPU but its own.
- `apptainer`: the same with the image's programs and Python in place of the system's. Who asked for a GPU
  sees all of the node's: which are its own is a matter of the environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

HOST = "script_host.py"
CODE, SCRATCH, TMP, SHM = "/heliostat", "/scratch", "/tmp", "/dev/shm"  # names inside a sandbox
SYSTEM = ("/usr", "/sys")
ETC = (
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "fonts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "nsswitch.conf",
    "OpenCL",
    "pki",
    "ssl",
)
"""What libraries read of /etc. The list of the site's users is not among it."""

LOCKED = ("--unshare-user", "--disable-userns")
GPU_VARIABLES = (
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "ONEAPI_DEVICE_SELECTOR",
)
PATH_VARIABLES = ("LD_LIBRARY_PATH", "PYTHONPATH")
"""Where the node's modules have put the libraries of its Python."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Folder:
    """A folder by the name that programs use, and by its `real` one, where no part is a link."""

    path: str
    real: str
    is_owners: bool = False
    """Whether the owner may write there, or could allow it to themselves."""


@dataclass(frozen=True)
class Node:
    """What is on a node. `python` is the interpreter to run; `folders` are all that it needs to be seen,
    `paths` where variables say that more libraries are.

    `top` are the entries of / that belong to the system, with their target where they are links (/bin →
    usr/bin). `homes` are all names of the owner's home, which no folder may contain; `image_cache` is where
    apptainer keeps what it has fetched. `devices` are the GPUs of this call, and `gpu_environment` says which
    they are where no others are to be seen.
    """

    python: str
    folders: Sequence[Folder]
    paths: Sequence[Folder]
    top: Mapping[str, str]
    devices: Sequence[str]
    homes: Sequence[str]
    environment: Mapping[str, str]
    gpu_environment: Mapping[str, str] = field(default_factory=dict)
    image_cache: str = ""
    locks_namespaces: bool = False
    """Whether bwrap can keep what is in it from making namespaces of its own (0.8 and later)."""


@dataclass(frozen=True)
class Ask:
    """What one sandbox is for. `base` holds its folders: code, scratch, tmp and shm."""

    kind: str
    base: str
    cpus: float
    gpus: float
    image: str | None = None


def command(ask: Ask, node: Node) -> list[str]:
    """Return the command line that runs the script's host."""
    if ask.kind == "bwrap":
        return _bwrap(ask, node)
    if ask.kind == "apptainer":
        return _apptainer(ask, node)
    if ask.kind == "none":
        return [node.python, "-s", f"{ask.base}/code/{HOST}"]
    raise AssertionError(f"{ask.kind} is no sandbox")


def environment(ask: Ask, node: Node) -> dict[str, str]:
    """Return the whole environment: nothing of the owner's but where libraries and GPUs are."""
    inside = ask.kind != "none"
    threads = str(max(1, int(ask.cpus)))
    found = {
        "HOME": SCRATCH if inside else f"{ask.base}/scratch",
        "TMPDIR": TMP if inside else f"{ask.base}/tmp",
        "LANG": "C.UTF-8",
        "USER": "script",
        "LOGNAME": "script",
        **dict.fromkeys(THREAD_VARIABLES, threads),
        **_gpus(ask, node),
    }
    if ask.kind == "apptainer":
        # The image has paths of its own. Its HOME is set by the command line.
        passed = {f"APPTAINERENV_{name}": value for name, value in found.items() if name != "HOME"}
        return {"PATH": node.environment.get("PATH", ""), **_own_of_apptainer(ask, node), **passed}
    hidden = [one.path for one in node.paths if not _is_public(one, node)] if ask.kind == "bwrap" else []
    paths = {name: found_paths for name in PATH_VARIABLES if (found_paths := _paths(node, name, but=hidden))}
    return {"PATH": f"{PurePath(node.python).parent}:/usr/local/bin:/usr/bin:/bin", **paths, **found}


def _own_of_apptainer(ask: Ask, node: Node) -> dict[str, str]:
    """Return what apptainer itself is told. Its home goes with the call, and what it has fetched must not."""
    found = {"HOME": f"{ask.base}/scratch"}
    if ask.image and "://" in ask.image:
        found |= {"APPTAINER_CACHEDIR": node.image_cache, "APPTAINER_TMPDIR": f"{ask.base}/tmp"}
    return found


def _paths(node: Node, name: str, *, but: Sequence[str]) -> str:
    # A relative one means another place in a sandbox. One that can't be seen would only tell of itself.
    entries = node.environment.get(name, "").split(":")
    return ":".join(path for path in entries if path.startswith("/") and path not in but)


def _gpus(ask: Ask, node: Node) -> dict[str, str]:
    if not ask.gpus:
        return {"CUDA_VISIBLE_DEVICES": ""}
    if ask.kind == "bwrap" and node.gpu_environment:
        return dict(node.gpu_environment)
    return {name: node.environment[name] for name in GPU_VARIABLES if name in node.environment}


def _bwrap(ask: Ask, node: Node) -> list[str]:
    return [
        "bwrap",
        *_system(node),
        *("--proc", "/proc", "--dev", "/dev"),
        *("--bind", f"{ask.base}/shm", SHM),
        *_each("--dev-bind-try", node.devices if ask.gpus else ()),
        *("--bind", f"{ask.base}/tmp", TMP),
        *("--bind", f"{ask.base}/scratch", SCRATCH),
        # After /tmp: a Python that Ray has made for a call is below it.
        *_each("--ro-bind-try", _shown(node)),
        *("--ro-bind", f"{ask.base}/code", CODE),
        # What is left of the sandbox's own file systems lies in memory that no limit counts.
        *("--remount-ro", "/dev", "--remount-ro", "/"),
        # In a namespace of its own a script could mount memory that no limit counts.
        *(LOCKED if node.locks_namespaces else ("--unshare-user-try",)),
        *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *("--unshare-net", "--hostname", "sandbox"),
        *("--cap-drop", "ALL", "--die-with-parent", "--new-session", "--chdir", SCRATCH),
        *("--", node.python, "-s", f"{CODE}/{HOST}"),
    ]


def _system(node: Node) -> list[str]:
    links = [
        word
        for name, target in sorted(node.top.items())
        for word in (("--symlink", target, name) if target else ("--ro-bind", name, name))
    ]
    etc = [f"/etc/{name}" for name in ETC]
    return [*_each("--ro-bind", SYSTEM), *links, *_each("--ro-bind-try", etc)]


def _shown(node: Node) -> list[str]:
    """Return the folders of Python to show, those above others first; none that holds the owner's home.

    Python itself may lie in there. What else does is the owner's own work, and so is what they may write.
    """
    found = {
        folder.path
        for folder in (*node.folders, *(one for one in node.paths if _is_public(one, node)))
        if folder.path.startswith("/") and not _holds_a_home(folder, node) and not _holds("/usr", folder.path)
    }
    return sorted(found, key=lambda folder: (len(PurePath(folder).parts), folder))


def _is_public(folder: Folder, node: Node) -> bool:
    """Say whether a folder that a variable names is the site's, to be seen by everybody."""
    names = (folder.path, folder.real)
    return not folder.is_owners and not any(_holds(home, name) for home in node.homes for name in names)


def _holds_a_home(folder: Folder, node: Node) -> bool:
    return any(_holds(name, home) for home in node.homes for name in (folder.path, folder.real))


def _holds(folder: str, other: str) -> bool:
    return PurePath(other).is_relative_to(PurePath(folder))


def _each(option: str, paths: Sequence[str]) -> list[str]:
    return [word for path in paths for word in (option, path, path)]


def _apptainer(ask: Ask, node: Node) -> list[str]:
    assert ask.image, "apptainer without an image: the cluster file's check lets none through"
    drivers = [
        option for option, sign in (("--nv", "/dev/nvidia"), ("--rocm", "/dev/kfd")) if _any(node, sign)
    ]
    return [
        *("apptainer", "--silent", "exec", "--containall", "--cleanenv"),
        # A site's own list of folders that every container gets is for people who are the account's owner.
        *("--no-mount", "hostfs,bind-paths"),
        *("--net", "--network", "none"),
        *(drivers if ask.gpus else ()),
        *("--home", f"{ask.base}/scratch:{SCRATCH}", "--pwd", SCRATCH),
        *("--bind", f"{ask.base}/code:{CODE}:ro", "--bind", f"{ask.base}/tmp:{TMP}"),
        *(ask.image, "python3", "-s", f"{CODE}/{HOST}"),
    ]


def _any(node: Node, sign: str) -> bool:
    return any(device.startswith(sign) for device in node.devices)
