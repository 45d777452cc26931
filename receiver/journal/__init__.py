"""The write-ahead journal of live streams: records, writer, spool, backlog."""
