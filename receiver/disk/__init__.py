"""Files and folders: names, private modes, locks and syncs."""
