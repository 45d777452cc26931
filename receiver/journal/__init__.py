"""The write-ahead journal of live streams: its records, the writer and the syncer."""
