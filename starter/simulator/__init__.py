"""A simulated provider: plays calls into a receiver, and answers like the REST API."""
