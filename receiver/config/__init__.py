"""Settings: which there are, what values they take, where each came from."""
