"""An auth service by grpcio, in a process of its own: it allows who has a token, and says in a header who that is.

Its address is the only argument. It ends with its standard input.
"""

import sys
from concurrent import futures
from typing import Any

import grpc
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationServicer, add_AuthorizationServicer_to_server


class Authorization(AuthorizationServicer):  # type: ignore[misc]
    """The service."""

    def Check(self, request: CheckRequest, context: Any) -> CheckResponse:
        """Decide about a request."""
        response = CheckResponse()
        headers = request.attributes.request.http.headers
        if "x-token" not in headers:
            response.status.code = grpc.StatusCode.UNAUTHENTICATED.value[0]
            response.denied_response.status.code = 401
            response.denied_response.body = "who are you?"
            return response
        option = response.ok_response.headers.add()
        option.header.key, option.header.value = "x-id", headers["x-token"]
        return response


def main() -> None:
    """Serve."""
    server = grpc.server(futures.ThreadPoolExecutor(16))
    add_AuthorizationServicer_to_server(Authorization(), server)
    server.add_insecure_port(sys.argv[1])
    server.start()
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    main()
