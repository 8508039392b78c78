"""The middleware for WSGI servers (PEP 3333)."""
