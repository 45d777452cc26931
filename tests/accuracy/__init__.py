"""Modelled senders, what a perfect recorder would make of them, and recorders held to that."""
