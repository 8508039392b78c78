"""What an asyncio transport does not do or say: read on, close after its loop, tell how the peer ended the stream."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress

_SEGMENT = 65536


def iter_unread(transport: asyncio.Transport) -> Iterator[bytes]:
    """Yield what the kernel has buffered for a transport in plain text, up to the end or an error; nothing under TLS.

    asyncio and uvloop stop reading after a failed write.
    """
    if transport.get_extra_info("sslcontext") is not None:
        return
    descriptor = transport.get_extra_info("socket").fileno()
    with suppress(OSError), socket.fromfd(descriptor, socket.AF_UNSPEC, socket.SOCK_STREAM) as copy:
        while data := copy.recv(_SEGMENT, socket.MSG_DONTWAIT):
            yield data


def close_after_loop(transport: asyncio.Transport) -> None:
    """Close a transport whose event loop was closed, with its socket.

    uvloop has closed it with the loop. A transport of asyncio only plans the end of its connection, and a closed loop
    takes no plans: it would keep its socket until it is collected, and then warn of it.
    """
    with suppress(RuntimeError):
        transport.abort()
    # Under TLS, the transport of the socket is behind that of the application.
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None) or transport
    end = getattr(below, "_call_connection_lost", None)
    if end is not None:
        with suppress(RuntimeError):
            end(None)


def ended_by_peer(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer itself has ended the stream; only to be asked in `eof_received`.

    Under TLS it has if it sent close_notify (RFC 8446, section 6.1). Anybody on the way can end the TCP connection, and
    asyncio calls `eof_received` for both.
    """
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if tls is None:
        return True
    try:
        return not tls.read(1)
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False
