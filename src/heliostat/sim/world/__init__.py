"""The simulated world: Ray, its work and the backends. What is here is the truth; controllers only ask."""
