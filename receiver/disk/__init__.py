"""Files and folders: opened, created, locked, synced; and their names."""
