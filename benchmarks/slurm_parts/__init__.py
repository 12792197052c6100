"""The parts of benchmarks/slurm.py, each on a mini Slurm."""
