"""Inspect rules without serving requests: lint and explain."""
