"""The Slurm backend: instances are Ray worker nodes in jobs of a batch system.

For the reader of a cluster file: `check_section` and `check_options`.
"""

from heliostat.providers.slurm.checks import check_options, check_section
from heliostat.providers.slurm.provider import SlurmProvider, create

__all__ = ["SlurmProvider", "check_options", "check_section", "create"]
