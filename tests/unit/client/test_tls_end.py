"""The end of a response that ends with its connection, under TLS: whole only if the upstream itself ended it."""

import os
import socket
import ssl
from collections.abc import Callable
from contextlib import aclosing, suppress

import pytest
from upstream import CERTIFICATE, OK, WITH_EVERY_CLIENT, Peer, Run, req, serving, whole

from canary_mw.client.tls import TLSContexts
from canary_mw.exceptions import UpstreamProtocolError

CONTEXTS = TLSContexts(default=ssl.create_default_context(cafile=CERTIFICATE))
# The head of a record of application data, and less than it says.
PART_OF_A_RECORD = b"\x17\x03\x03\x00\x50part"


def serving_tls(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    context.minimum_version = context.maximum_version = version
    return context


def fin(peer: Peer) -> None:
    """End TCP, as anybody on the way can, without close_notify."""
    with socket.socket(fileno=os.dup(peer.writer.get_extra_info("socket").fileno())) as tcp:
        tcp.shutdown(socket.SHUT_WR)


def fin_within_a_record(peer: Peer) -> None:
    os.write(peer.writer.get_extra_info("socket").fileno(), PART_OF_A_RECORD)
    fin(peer)


WITH_BOTH_VERSIONS = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"]
)
# The second is more than is read in advance: the connection ends while nobody reads.
WITH_BODIES = pytest.mark.parametrize("body", [b"amount=1000", b"x" * (1 << 20)], ids=["short", "long"])
WITH_HEADS = pytest.mark.parametrize(
    "head", [OK + b"connection: close\r\n\r\n", OK + b"\r\n", b"HTTP/1.0 200 OK\r\n\r\n"], ids=["close", "1.1", "1.0"]
)


@WITH_EVERY_CLIENT
@WITH_BOTH_VERSIONS
@WITH_BODIES
@WITH_HEADS
def test_a_response_that_ends_by_close_notify_is_whole(
    run: Run, version: ssl.TLSVersion, body: bytes, head: bytes
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(head + body)
        peer.finish()

    async def main() -> None:
        async with (
            serving(script, tls=serving_tls(version)) as upstream,
            aclosing(run.client(contexts=CONTEXTS)) as client,
        ):
            assert await whole(await client.send(upstream.origin, req())) == body

    run(main)


@WITH_EVERY_CLIENT
@WITH_BOTH_VERSIONS
@WITH_BODIES
@WITH_HEADS
@pytest.mark.parametrize("end", [fin, fin_within_a_record, Peer.reset])
def test_a_response_that_ends_without_close_notify_never_looks_whole(
    run: Run, version: ssl.TLSVersion, body: bytes, head: bytes, end: Callable[[Peer], None]
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(head + body)
        end(peer)
        # The client may answer with an alert.
        with suppress(ssl.SSLError):
            await peer.gone()

    async def main() -> None:
        async with (
            serving(script, tls=serving_tls(version)) as upstream,
            aclosing(run.client(contexts=CONTEXTS)) as client,
        ):
            with pytest.raises(UpstreamProtocolError):
                await whole(await client.send(upstream.origin, req()))

    run(main)


@WITH_EVERY_CLIENT
@pytest.mark.parametrize(
    "answer",
    [OK + b"content-length: 2\r\n\r\nok", OK + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"],
    ids=["length", "chunked"],
)
def test_a_response_that_says_its_own_end_needs_no_close_notify(run: Run, answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        fin(peer)
        await peer.gone()

    async def main() -> None:
        context = serving_tls(ssl.TLSVersion.TLSv1_3)
        async with serving(script, tls=context) as upstream, aclosing(run.client(contexts=CONTEXTS)) as client:
            assert await whole(await client.send(upstream.origin, req())) == b"ok"

    run(main)
