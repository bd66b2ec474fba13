"""The event log: append, read, follow."""
