"""Receives media streams of phone calls: records every track and serves the audio live."""

__version__ = "0.1.0"
