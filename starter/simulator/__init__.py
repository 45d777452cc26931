"""A stand-in for the provider: plays calls into a receiver, and answers like its REST API."""
