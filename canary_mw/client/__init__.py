"""The HTTP/1.1 client of the upstream leg, on asyncio and on threads."""
