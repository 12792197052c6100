"""The cluster file and the folders of a cluster: read, checked, and turned into model objects."""
