"""`python -m benchmarks.clients`: what one small request costs through clients for threads, and ours for asyncio.

All do what forwarding needs and no more: a head that is there already goes out, status, headers and body come in.
"""

import argparse
import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from queue import Empty, LifoQueue
from statistics import median
from tempfile import TemporaryDirectory
from threading import Thread
from time import process_time

from canary_mw.client.aio.client import HTTP11Client
from canary_mw.client.sync.client import SyncHTTP11Client
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.rules.upstream import Origin

from . import servers

THREADED = "canary-mw, blocking"
ASYNCIO = "canary-mw, asyncio"
REQUESTS = 4_000
THREADS = (1, 16)
_NAMES = b"host accept user-agent accept-encoding accept-language cookie x-request-id x-forwarded-for"
HEADERS = [(name, b"value-of-" + name) for name in _NAMES.split()]
_HEADERS = {name.decode(): value.decode() for name, value in HEADERS}

ANSWER = b'{"service": "stable"}'

Call = Callable[[], bytes]


@contextmanager
def ours(port: int) -> Iterator[Call]:
    """`BlockingClient`."""
    client = SyncHTTP11Client()
    origin = Origin("http", "127.0.0.1", port)

    def call() -> bytes:
        response = client.send(origin, UpstreamRequest("shop", "GET", b"/", HEADERS))
        body = response.take()
        if body is None:
            body = response.read()
            response.close()
        return body

    yield call
    client.close()


@contextmanager
def http_client(port: int) -> Iterator[Call]:
    """The standard library's connections in a queue."""
    idle: LifoQueue[HTTPConnection] = LifoQueue()

    def call() -> bytes:
        try:
            connection = idle.get_nowait()
        except Empty:
            connection = HTTPConnection("127.0.0.1", port, timeout=3)
        connection.putrequest("GET", "/", skip_host=True, skip_accept_encoding=True)
        for name, value in HEADERS:
            connection.putheader(name.decode(), value)
        connection.endheaders()
        response = connection.getresponse()
        body = response.read()
        idle.put(connection)
        return body

    yield call
    with suppress(Empty):
        while True:
            idle.get_nowait().close()


@contextmanager
def urllib3(port: int) -> Iterator[Call]:
    """A pool of urllib3 without retries, redirects and decoding."""
    from urllib3 import HTTPConnectionPool

    pool = HTTPConnectionPool("127.0.0.1", port, maxsize=64, timeout=3, retries=False)

    def call() -> bytes:
        response = pool.urlopen("GET", "/", headers=_HEADERS, redirect=False, preload_content=False)
        body: bytes = response.read(decode_content=False)
        response.release_conn()
        return body

    yield call
    pool.close()


@contextmanager
def httpx(port: int) -> Iterator[Call]:
    """A bare transport of httpx."""
    import httpx

    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    url = f"http://127.0.0.1:{port}/"
    timeout = {"connect": 3.0, "read": 3.0, "write": 3.0, "pool": 3.0}
    with httpx.HTTPTransport(limits=limits, retries=0) as transport:

        def call() -> bytes:
            request = httpx.Request("GET", url, headers=HEADERS, extensions={"timeout": timeout})
            response = transport.handle_request(request)
            body = b"".join(response.iter_raw())
            response.close()
            return body

        yield call


BLOCKING = {THREADED: ours, "http.client": http_client, "urllib3": urllib3, "httpx, bare": httpx}


def threads_cost(call: Call, threads: int, requests: int = REQUESTS) -> float:
    """CPU microseconds per request, kernel included, of so many threads that do nothing else."""

    def work() -> None:
        for _ in range(requests // threads):
            call()

    if (answer := call()) != ANSWER:
        raise ValueError(f"not the upstream's answer: {answer!r}")
    workers = [Thread(target=work) for _ in range(threads)]
    began = process_time()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return (process_time() - began) / (requests // threads * threads) * 1e6


async def tasks_cost(port: int, tasks: int, requests: int = REQUESTS) -> float:
    """The same for tasks of one loop over `HTTP11Client`."""
    client = HTTP11Client()
    origin = Origin("http", "127.0.0.1", port)

    async def call() -> bytes:
        response = await client.send(origin, UpstreamRequest("shop", "GET", b"/", HEADERS))
        body = response.take()
        if body is None:
            body = await response.read()
            response.close()
        return body

    async def work() -> None:
        for _ in range(requests // tasks):
            await call()

    if (answer := await call()) != ANSWER:
        raise ValueError(f"not the upstream's answer: {answer!r}")
    began = process_time()
    await asyncio.gather(*(work() for _ in range(tasks)))
    cost = (process_time() - began) / (requests // tasks * tasks) * 1e6
    await client.aclose()
    return cost


def costs(port: int, threads: int, rounds: int) -> dict[str, list[float]]:
    """By client, round by round, in turn; what is not installed is left out."""
    import uvloop

    found: dict[str, list[float]] = {ASYNCIO: []}
    for _ in range(rounds):
        found[ASYNCIO].append(uvloop.run(tasks_cost(port, threads)))
        for name, client in BLOCKING.items():
            with suppress(ImportError), client(port) as call:
                found.setdefault(name, []).append(threads_cost(call, threads))
    return found


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clients")
    parser.add_argument("--rounds", type=int, default=5)
    rounds: int = parser.parse_args().rounds
    with TemporaryDirectory(prefix="canary-mw-bench-") as folder, servers.upstream(Path(folder)) as ports:
        for threads in THREADS:
            print(f"{threads} at once, CPU us per request: median (smallest-largest)")
            for name, values in costs(ports.stable, threads, rounds).items():
                print(f"  {name:20} {median(values):8.1f} ({min(values):.1f}-{max(values):.1f})", flush=True)


if __name__ == "__main__":
    main()
