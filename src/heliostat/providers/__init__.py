"""The backends, one file or folder each, found by entry point. None imports another."""
