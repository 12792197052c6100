"""What runs on every worker: one file, the bootstrap, that needs nothing of ours around it."""

from pathlib import Path

BOOTSTRAP_PATH = Path(__file__).with_name("bootstrap.py")
"""The bootstrap's file, to be carried to where a worker starts."""
