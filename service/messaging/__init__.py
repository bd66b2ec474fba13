"""The FastStream application: commands by message and the ordered relay of the log."""
