"""What a middleware does for LogServices: who is told, and the streams to them."""

import socket
from collections.abc import Mapping as Dict
from weakref import finalize

from canary_mw.client.extra import GRPC_PROTOCOLS, importing_grpc
from canary_mw.client.tls import TLSContexts
from canary_mw.forwarding.protobuf.access_log import METHOD
from canary_mw.middleware.options import Options
from canary_mw.observability.figures.tallies import Tally
from canary_mw.observability.logs.destination import LogStream
from canary_mw.observability.logs.service import RequestLog, log_queues
from canary_mw.rules.filters.logs import LogPolicy
from canary_mw.rules.upstream import Origin
from canary_mw.upstreams.overrides import find_override, parse_origins


class Streams:
    """Opens streams to LogServices, or to what replaces them.

    Args:
        overrides: URLs by the names of services.
        contexts: TLS settings.
    """

    def __init__(self, overrides: Dict[str, list[Origin]], contexts: TLSContexts) -> None:
        self._overrides = overrides
        self._contexts = contexts

    def open(self, policy: LogPolicy, limit: float) -> LogStream:
        """Open a stream within some seconds.

        Raises:
            UpstreamConnectError: no connection.
        """
        with importing_grpc():
            from canary_mw.client.sync.grpc_stream import GrpcStream

        given = find_override(self._overrides, policy.service) or self._overrides.get("*")
        return GrpcStream(given[0] if given else policy.service.origin, self._contexts, METHOD, limit)


def request_log(options: Options, tally: Tally, *, wraps: bool) -> RequestLog:
    """The log of a middleware; when nobody uses it any more, its thread ends."""
    overrides = {name.lower(): parse_origins(name, urls) for name, urls in (options.upstreams or {}).items()}
    streams = Streams(overrides, TLSContexts(options.secrets, alpn=GRPC_PROTOCOLS))
    queues = log_queues(socket.gethostname(), streams.open, tally)
    log = RequestLog(queues, wraps=wraps)
    finalize(log, queues.end).atexit = False
    return log
