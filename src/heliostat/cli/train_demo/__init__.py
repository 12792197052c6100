"""`heliostat train-demo`: training that grows and shrinks with its cluster, and a picture of it."""

from heliostat.cli.train_demo.story import Wishes, run

__all__ = ["Wishes", "run"]
