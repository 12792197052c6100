"""`heliostat demo`: a real cluster on this machine that scales up, does real work, and goes back to zero."""

from heliostat.cli.demo.story import run

__all__ = ["run"]
