"""A small rate limiter: Envoy's RateLimitService over gRPC. It counts in Redis, so all who ask are counted together.

pip install grpcio xds-protos redis
redis-server --port 6379 &
python examples/rate_limit/limiter.py &
examples/rate_limit/serve.sh &
for n in 1 2 3 4 5 6; do curl -i http://127.0.0.1:8080/shop/; done
"""

import os
import time
from concurrent import futures
from typing import Any

import grpc
import redis
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from envoy.service.ratelimit.v3.rls_pb2_grpc import RateLimitServiceServicer, add_RateLimitServiceServicer_to_server

ADDRESS = os.environ.get("LIMITER", "127.0.0.1:8081")
REDIS = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
# By the keys of a descriptor: requests, and the seconds in which so many may come.
LIMITS = {("generic_key", "remote_address"): (int(os.environ.get("LIMIT", "5")), 60)}
OK, OVER_LIMIT = RateLimitResponse.OK, RateLimitResponse.OVER_LIMIT


class Limiter(RateLimitServiceServicer):
    """Counts each descriptor of a request in fixed windows of time."""

    def __init__(self) -> None:
        self.counts = redis.Redis.from_url(REDIS)

    def ShouldRateLimit(self, request: RateLimitRequest, context: Any) -> RateLimitResponse:
        """Say whether the request is one too many."""
        response = RateLimitResponse(overall_code=OK)
        for descriptor in request.descriptors:
            limit = LIMITS.get(tuple(entry.key for entry in descriptor.entries))
            if limit is not None and self.count(request.domain, descriptor, limit[1]) > limit[0]:
                response.overall_code = OVER_LIMIT
                response.raw_body = b"too many requests\n"
                response.response_headers_to_add.add(key="retry-after", value=str(limit[1]))
        return response

    def count(self, domain: str, descriptor: Any, seconds: int) -> int:
        """How many requests with these values there were in this window, this one included."""
        entries = "|".join(f"{entry.key}={entry.value}" for entry in descriptor.entries)
        key = f"limit:{domain}:{entries}:{int(time.time()) // seconds}"
        with self.counts.pipeline() as pipeline:
            pipeline.incr(key).expire(key, seconds)
            return int(pipeline.execute()[0])


def main() -> None:
    """Serve until the process ends."""
    server = grpc.server(futures.ThreadPoolExecutor(16))
    add_RateLimitServiceServicer_to_server(Limiter(), server)
    server.add_insecure_port(ADDRESS)
    server.start()
    print(f"the limiter is running on http://{ADDRESS}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
