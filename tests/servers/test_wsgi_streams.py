"""Bodies that come bit by bit, break off or are large, through WSGI servers as they are deployed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from servers import Client, client_of, fetch, mapping, run
from upstream import OK, Peer, Script, serving, until
from wsgiprocess import ServerProcess, served

CHUNKED = [("transfer-encoding", "chunked")]
# More than is read at once.
LARGE = bytes(200_000)


class Service:
    """A server whose gray service a script plays."""

    def __init__(self, port: int, process: ServerProcess) -> None:
        self.port = port
        self.process = process

    def memory(self) -> int:
        """Bytes of all workers."""
        children = Path(f"/proc/{self.process.child.pid}/task/{self.process.child.pid}/children").read_text().split()
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in children]
        return 4096 * sum(pages)


@contextlib.asynccontextmanager
async def service(server: str, script: Script, folder: Path, **attributes: object) -> AsyncIterator[Service]:
    """Serve by gunicorn with one kind of worker, or by waitress."""
    async with serving(script) as upstream:
        rules = folder / "rules"
        rules.mkdir()
        gray = mapping("gray", "/a/", f"127.0.0.1:{upstream.origin.port}", **attributes)
        (rules / "rules.yaml").write_text(gray)
        starting = served(server, "preforked:create_app", folder / "log", PREFORKED_RULES=str(rules))
        with contextlib.ExitStack() as stack:
            process, port = await asyncio.to_thread(stack.enter_context, starting)
            yield Service(port, process)
            await asyncio.to_thread(stack.close)


async def chunk(client: Client, data: bytes) -> None:
    await client.put(b"%x\r\n%b\r\n" % (len(data), data))


@pytest.mark.parametrize("server", [pytest.param("sync", marks=pytest.mark.slow), "gthread", "waitress"])
def test_what_an_upstream_leaves_unfinished_is_unfinished_for_the_client(server: str, tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        while True:
            line = (await peer.request()).line
            if line.startswith(b"HEAD"):
                await peer.send(OK + b"content-length: 10\r\n\r\n")
            elif b"/length" in line or b"/chunks" in line:
                framing = b"content-length: 100" if b"/length" in line else b"transfer-encoding: chunked"
                await peer.send(OK + framing + b"\r\n\r\n4\r\nhalf\r\n")
                peer.finish()
                return
            else:
                await peer.answer(status=line.split()[1][1:] + b" Said")

    async def main() -> None:
        async with service(server, script, tmp_path) as there:
            for target in ("/a/length", "/a/chunks"):
                answer = await fetch(there.port, target)
                assert answer.status == 200
                assert answer.body.endswith(b"half" if target == "/a/chunks" else b"half\r\n")
                assert not answer.whole
            head = await fetch(there.port, "/a/", "HEAD")
            assert (head.status, head.body, head.whole, head.header("content-length")) == (200, b"", True, "10")
            for status in (204, 304, 418):
                answer = await fetch(there.port, f"/a/{status}")
                assert (answer.status, answer.whole) == (status, True)

    run(main())


@pytest.mark.parametrize("server", [pytest.param("sync", marks=pytest.mark.slow), "gthread"])
def test_an_upload_passes_in_chunks_and_is_never_completed_for_the_client(server: str, tmp_path: Path) -> None:
    begun = asyncio.Event()
    bodies: list[bytes] = []

    async def script(peer: Peer) -> None:
        head = await peer.head()
        if b"/early" in head.line:
            await peer.answer(b"too large", status=b"413 Content Too Large")
            await peer.gone()
            return
        assert (b"transfer-encoding: chunked" in head.headers) is (b"/chunks" in head.line)
        await peer.reader.readexactly(65536)
        begun.set()
        if b"/broken" in head.line:
            bodies.append(await peer.gone())
        else:
            last = b"0\r\n\r\n" if b"/chunks" in head.line else b"the rest."
            bodies.append(await peer.reader.readuntil(last))
            await peer.answer(b"done")

    async def main() -> None:
        async with service(server, script, tmp_path, timeout_ms=0) as there:
            for target, headers in (("/a/length", [("content-length", "65545")]), ("/a/chunks", CHUNKED)):
                begun.clear()
                async with client_of(there.port) as client:
                    await client.ask("POST", target, headers)
                    send = client.put if headers is not CHUNKED else lambda data, client=client: chunk(client, data)
                    await send(bytes(65536))
                    # The upstream has the first chunk before the client sends the second.
                    await begun.wait()
                    await send(b"the rest.")
                    if headers is CHUNKED:
                        await client.put(b"0\r\n\r\n")
                    assert (await client.answer()).body == b"done"
            begun.clear()
            async with client_of(there.port) as client:
                await client.ask("POST", "/a/broken", [("content-length", "200000")])
                await client.put(bytes(70000))
                await begun.wait()
            await until(lambda: len(bodies) == 3)
            assert len(bodies[2]) < 200000 - 65536
            async with client_of(there.port) as client:
                # All of it: while a thread waits for the client it does not see what the upstream says.
                await client.ask("POST", "/a/early", body=LARGE)
                answer = await client.answer()
                assert (answer.status, answer.body) == (413, b"too large")

    run(main())


def test_an_answer_passes_while_it_still_comes_in(tmp_path: Path) -> None:
    more = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"content-type: text/event-stream\r\n\r\ndata: 1\n\n")
        await more.wait()
        await peer.send(b"data: 2\n\n")
        peer.finish()

    async def main() -> None:
        async with service("gthread", script, tmp_path) as there, client_of(there.port) as client:
            await client.ask("GET", "/a/")
            await client.head()
            assert await client.data() == b"data: 1\n\n"
            more.set()
            assert await client.data() == b"data: 2\n\n"
            assert await client.data() == b""

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("server", [pytest.param("sync", marks=pytest.mark.slow), "gthread"])
def test_large_bodies_take_no_memory(server: str, tmp_path: Path) -> None:
    size = 256 << 20
    chunk = bytes(1 << 18)

    async def script(peer: Peer) -> None:
        head = await peer.head()
        if head.line.startswith(b"POST"):
            left = size
            while left:
                left -= len(await peer.read_some())
            await peer.answer(b"done")
            return
        await peer.send(OK + b"content-length: %d\r\n\r\n" % size)
        for _ in range(size // len(chunk)):
            await peer.send(chunk)

    async def main() -> None:
        async with service(server, script, tmp_path, timeout_ms=0) as there:
            assert (await fetch(there.port, "/shop/")).status == 200
            before = there.memory()
            async with client_of(there.port) as client:
                await client.ask("GET", "/a/")
                await client.head()
                total = 0
                while data := await client.data():
                    total += len(data)
                assert total == size
            async with client_of(there.port) as client:
                await client.ask("POST", "/a/", [("content-length", str(size))])
                for _ in range(size // len(chunk)):
                    await client.put(chunk)
                assert (await client.answer()).body == b"done"
            assert there.memory() - before < 16 << 20

    run(main())
