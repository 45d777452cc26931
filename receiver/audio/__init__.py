"""Samples: G.711 and L16 in, WAV files out and in again, with their tags."""
