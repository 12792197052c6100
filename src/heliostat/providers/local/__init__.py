"""The local backend: instances are Ray worker nodes as processes on this machine.

For the head's launcher, which must take what this provider leaves out:
`head_gpus(machine_gpus(options), head_resources)`, shown to the head with `visible_devices`.
For the reader of a cluster file: `check_section` and `check_options`.
"""

from heliostat.providers.local.checks import check_options, check_section
from heliostat.providers.local.environment import visible_devices
from heliostat.providers.local.inventory import head_gpus
from heliostat.providers.local.provider import LocalProvider, create, machine_gpus

__all__ = [
    "LocalProvider",
    "check_options",
    "check_section",
    "create",
    "head_gpus",
    "machine_gpus",
    "visible_devices",
]
