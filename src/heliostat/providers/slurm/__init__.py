"""The Slurm backend: instances are Ray worker nodes in jobs of a batch system.

For the reader of a cluster file: `check_section`, `check_options`, and
`read_old_lines` for the `#SBATCH` lines of older files.
"""

from heliostat.providers.slurm.checks import check_options, check_section
from heliostat.providers.slurm.old_lines import read_old_lines
from heliostat.providers.slurm.provider import SlurmProvider, create

__all__ = ["SlurmProvider", "check_options", "check_section", "create", "read_old_lines"]
