"""A Bayeux 1.0 client for CometD servers."""
