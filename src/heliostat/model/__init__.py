"""What the product talks about, as frozen values: no I/O, no clock, no randomness, no Ray."""
