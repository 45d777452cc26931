"""From a journal to a published recording, and the recordings read again."""
