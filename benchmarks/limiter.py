"""A rate limit service by grpcio that lets everything pass: `python -m benchmarks.limiter PORT HEALTH_PORT`."""

import asyncio
import sys

import grpc.aio
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from envoy.service.ratelimit.v3.rls_pb2_grpc import RateLimitServiceServicer, add_RateLimitServiceServicer_to_server

_ANSWER = RateLimitResponse(overall_code=RateLimitResponse.OK)


class Limiter(RateLimitServiceServicer):  # type: ignore[misc]
    """The service."""

    async def ShouldRateLimit(self, request: RateLimitRequest, context: object) -> RateLimitResponse:
        """Not this time."""
        return _ANSWER


async def _healthy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    writer.close()


async def main(port: int, health_port: int) -> None:
    """Serve, and say over HTTP that it does."""
    server = grpc.aio.server()
    add_RateLimitServiceServicer_to_server(Limiter(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    async with await asyncio.start_server(_healthy, "127.0.0.1", health_port):
        await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
