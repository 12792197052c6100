"""What is ours on this host and astray: found by tags, records and start times, never by a name alone."""
