"""The fast path of the standalone server: the common request and response, without a task and without ASGI."""
