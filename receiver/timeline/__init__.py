"""Where every chunk of a track belongs: order, clock, gaps and placement."""
