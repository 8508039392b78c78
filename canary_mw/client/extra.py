"""The extra `grpc`: nothing of it is imported before the first gRPC call."""

from collections.abc import Iterator
from contextlib import contextmanager

from canary_mw.exceptions import UpstreamConnectError
from canary_mw.rules.upstream import UpstreamOptions

# What a TLS handshake offers for gRPC (RFC 9113, section 3.2).
GRPC_PROTOCOLS = ("h2",)


def is_grpc(options: UpstreamOptions) -> bool:
    """Whether requests under these options are gRPC calls."""
    return options.endpoints is not None and options.endpoints.grpc


@contextmanager
def importing_grpc() -> Iterator[None]:
    """Around the import of a client for gRPC.

    Raises:
        UpstreamConnectError: the extra is not installed.
    """
    try:
        yield
    except ImportError as exc:
        text = f"gRPC needs the extra `grpc`, which is not installed: pip install 'canary-mw[grpc]' ({exc})"
        raise UpstreamConnectError(text) from exc
