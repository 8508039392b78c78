"""The limit that ends at the response head, over transports of httpx."""

import asyncio
from collections.abc import AsyncIterator
from math import inf

import httpx
import pytest
from servers import run
from upstream import req

from canary_mw.client.aio.httpx_transport import HttpxTransport
from canary_mw.client.sync.httpx_transport import SyncHttpxTransport
from canary_mw.exceptions import UpstreamTimeout
from canary_mw.http.messages import BodyFraming
from canary_mw.rules.upstream import Origin, UpstreamOptions

ORIGIN = Origin("http", "shop", 80)
UPLOAD = req("POST", body=BodyFraming(None), timeout=0.05, timeout_ends_at_head=True)


def test_the_limit_of_an_upload_begins_after_its_last_chunk() -> None:
    taken: list[bytes] = []

    async def slow() -> AsyncIterator[bytes]:
        yield b"a"
        # The limit passes meanwhile.
        await asyncio.sleep(0.1)
        yield b"b"

    async def silent(asked: httpx.Request) -> httpx.Response:
        taken.append(await asked.aread())
        await asyncio.Event().wait()
        raise AssertionError

    async def main() -> None:
        with pytest.raises(UpstreamTimeout):
            await HttpxTransport(httpx.MockTransport(silent)).send(ORIGIN, UPLOAD, slow(), inf)

    run(main())
    assert taken == [b"ab"]


def test_a_head_before_the_last_chunk_ends_the_limit() -> None:
    class Early(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, stream=request.stream)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async def main() -> None:
        response = await HttpxTransport(Early()).send(ORIGIN, UPLOAD, chunks(), inf)
        assert [await response.read() for _ in range(3)] == [b"a", b"b", b""]

    run(main())


@pytest.mark.parametrize(("idle_timeout", "after_head"), [(None, None), (7.0, 7.0)])
def test_a_step_of_a_blocking_transport_has_the_limit_up_to_the_head(
    idle_timeout: float | None, after_head: float | None
) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        assert request.extensions["timeout"]["read"] == 0.05
        return httpx.Response(200, content=b"ok")

    options = UpstreamOptions(idle_timeout=idle_timeout)
    upload = req("POST", body=BodyFraming(None), timeout=0.05, timeout_ends_at_head=True, options=options)
    response = SyncHttpxTransport(httpx.MockTransport(answer)).send(ORIGIN, upload, iter([b"a", b"b"]), inf)
    response.move_deadline(inf)
    assert asked[0].extensions["timeout"]["read"] == after_head
    assert (response.read(), response.read()) == (b"ok", b"")
