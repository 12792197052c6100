"""The way to a running controller: JSON over a unix socket, its server and its client."""
