"""ASGI."""
