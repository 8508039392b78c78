"""Queries to a metrics system that a release is judged by besides, as values."""
