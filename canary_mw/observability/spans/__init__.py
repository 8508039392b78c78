"""Spans of requests for a TracingService."""
