"""The side of the gateway that faces Hypha: its connection, its token, and the functions that callers see."""
