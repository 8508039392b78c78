"""Traces of requests: contexts in headers, and which requests are traced."""
