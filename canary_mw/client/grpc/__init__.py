"""gRPC calls over HTTP/2 without I/O: what the clients for asyncio and for threads share. Needs the extra `grpc`."""
