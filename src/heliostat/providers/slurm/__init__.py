"""The Slurm backend: instances are Ray worker nodes in jobs of a batch system."""
