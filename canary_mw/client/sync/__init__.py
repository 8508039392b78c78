"""The HTTP/1.1 client for threads. Each module has its counterpart in `client.aio`."""
