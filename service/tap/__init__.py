"""The reverse proxy in front of GWS that records what it carries."""
