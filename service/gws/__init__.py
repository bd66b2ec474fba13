"""What Genesys Web Services mean: messages, resources, status codes, and the REST client."""
