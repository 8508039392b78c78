"""Reads of a socket that its asyncio transport no longer reads."""

import asyncio
import socket
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
