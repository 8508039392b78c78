"""Asks the metrics system about releases."""
