"""The receiver as a process: its server, workers, publish queue, metrics and shutdown."""
