"""The catalogue: an index of recordings in a database, made from files and always rebuildable."""
