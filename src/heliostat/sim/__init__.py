"""The simulator: the production controller in a world that one seed decides, with faults and checks."""
