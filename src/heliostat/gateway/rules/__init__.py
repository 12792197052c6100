"""Who may do what through the gateway, what it costs them, and what is remembered of it."""
