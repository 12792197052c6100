"""Small programs for those who work on Heliostat; none is installed with it."""
