"""Heliostat: one autoscaler for Ray clusters, whatever the machines come from."""

__version__ = "0.1.0"
