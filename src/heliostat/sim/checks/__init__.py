"""What must hold at every step of a simulated run: one file for each kind of rule."""
