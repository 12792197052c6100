"""Which of a node's GPU devices are a call's own, and by which numbers they go where there are no others.

It is used on the nodes, in the call's own Ray worker: standard library only, nothing of ours. Ray tells by
CUDA_VISIBLE_DEVICES which GPUs a call has: by their places among those that can be opened, in the order of
the PCI bus, or by their names (GPU-…). A kernel that shows a process some of the devices only gives these new
numbers, from 0 on: so does a container that has some of the files, and so do we.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NVIDIA = "CUDA_VISIBLE_DEVICES"
ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
ALL = ("dev/nvidia*", "dev/kfd", "dev/dri")
OTHERS = ("dev/kfd", "dev/dri")
"""Those of AMD and Intel, all of a node's that has none of NVIDIA's: whose they are is not told here."""
NUMBERED = re.compile(r"nvidia(\d+)")
CONTROLS = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
"""What every process needs that uses any GPU of NVIDIA's."""


class Unclear(ValueError):
    """Which GPUs are the call's can't be told."""


@dataclass(frozen=True)
class Gpu:
    """One GPU of NVIDIA's: its device, and its name where the driver tells it."""

    path: str
    name: str = ""


@dataclass(frozen=True)
class Own:
    """What a call is shown: devices, and the variables by which libraries find the GPUs among them."""

    devices: Sequence[str]
    environment: Mapping[str, str]


def own(environment: Mapping[str, str], *, root: str = "/") -> Own:
    """Return the devices of a call with GPUs. Raises Unclear where it would have to be shown others' too."""
    gpus = nvidia(root)
    if not gpus:
        return Own([path for name in OTHERS if os.path.exists(path := os.path.join(root, name))], {})
    places = [_place(word.strip(), gpus) for word in environment.get(NVIDIA, "").split(",")]
    shown = sorted(set(places))
    found = [os.path.join(root, "dev", name) for name in CONTROLS]
    devices = [gpus[place].path for place in shown] + [path for path in found if os.path.exists(path)]
    numbers = ",".join(str(shown.index(place)) for place in places)
    # NVIDIA's are in /dev/dri, too, all of them.
    return Own(devices, {NVIDIA: numbers, **ORDER})


def every(*, root: str = "/") -> Own:
    """Return all of the node's, whosever they are."""
    return Own([path for name in ALL for path in sorted(glob.glob(os.path.join(root, name)))], {})


def nvidia(root: str = "/") -> list[Gpu]:
    """Return the GPUs that this process may open, in the order of the PCI bus."""
    told = {}
    for path in sorted(glob.glob(os.path.join(root, "proc/driver/nvidia/gpus/*/information"))):
        with open(path, encoding="utf-8", errors="replace") as lines:
            facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        told[facts.get("Device Minor", "")] = facts.get("GPU UUID", "")
    names = os.listdir(os.path.join(root, "dev"))
    # Where the driver tells nothing (in some containers) the devices' numbers have to do for the order.
    minors = told or sorted((found[1] for name in names if (found := NUMBERED.fullmatch(name))), key=int)
    gpus = [Gpu(os.path.join(root, f"dev/nvidia{minor}"), told.get(minor, "")) for minor in minors]
    # What a job was given of a node may show in nothing but what it can open.
    return [one for one in gpus if os.access(one.path, os.R_OK | os.W_OK)]


def _place(word: str, gpus: Sequence[Gpu]) -> int:
    if word.isdigit() and int(word) < len(gpus):
        return int(word)
    named = [at for at, gpu in enumerate(gpus) if word.startswith("GPU-") and gpu.name.startswith(word)]
    if len(named) == 1:
        return named[0]
    raise Unclear(f"{NVIDIA} has {word!r}, and this node has {len(gpus)} GPUs that can be opened")
