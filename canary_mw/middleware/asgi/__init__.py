"""The middleware for ASGI servers."""
