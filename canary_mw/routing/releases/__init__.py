"""Releases as they are in force."""
