"""Keeps agents' CometD sessions alive and writes every delivery, and every gap, to the log."""
