"""The Hypha gateway: people far from the cluster call functions that run as Ray tasks."""
