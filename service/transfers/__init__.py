"""The SingleStepTransfer command, at most one attempt each, settled by evidence."""
