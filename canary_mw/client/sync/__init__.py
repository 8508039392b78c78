"""The client on threads; file by file the twin of `aio`."""
