"""The command `heliostat`, and the processes that it starts: all parts come together here."""
