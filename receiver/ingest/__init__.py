"""One provider connection: from its messages to the records of a journal."""
