"""One module for each command of `heliostat`; `cli.main` imports the one that is called."""
