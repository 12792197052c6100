"""A model of Ray: what it places where, when it retries, what it answers, and how late it tells."""

from heliostat.sim.world.ray.cluster import SimCluster
from heliostat.sim.world.ray.sim import RaySim

__all__ = ["RaySim", "SimCluster"]
