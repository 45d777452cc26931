"""Who may stream and who may listen: tokens, secrets, TLS."""
