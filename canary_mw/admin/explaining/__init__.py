"""The answer about what would happen to a request."""
