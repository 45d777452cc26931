"""Live streams passed on to other media-stream servers."""
