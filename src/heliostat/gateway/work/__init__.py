"""Where calls become Ray's work: a process of its own holds the driver, replaced when its head goes."""
