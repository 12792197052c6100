"""The Protocols that the loop speaks to, and the typed errors that come back. No I/O here."""
