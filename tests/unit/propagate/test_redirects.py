"""What a redirect does with a lane: each way to put a header on a request, measured on real sockets.

An allowed host redirects to one off the list. The ways that leak are here to show why the others are used.
"""

import asyncio
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx
import pytest
import requests
import urllib3
from opentelemetry import baggage, context
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redirecting import Heard, redirecting
from requests.adapters import HTTPAdapter

from canary_mw import propagate

LANE = "svc=gray"
NAME = "x-canary-lane"


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Heard, Heard]]:
    with redirecting() as pair:
        yield pair


@pytest.fixture
def hosts(servers: tuple[Heard, Heard]) -> Iterator[tuple[Heard, Heard]]:
    """The two servers; the first one is told, nothing is patched."""
    first, other = servers
    first.lanes.clear()
    other.lanes.clear()
    propagate.install([first.host], clients=())
    with propagate.lane(LANE):
        yield first, other
    propagate.uninstall()


Hosts = tuple[Heard, Heard]


def assert_told_once(hosts: Hosts) -> None:
    """The first was asked once and told, the other was asked once and told nothing."""
    assert [each.lanes for each in hosts] == [[LANE], [None]]


def assert_leaks(hosts: Hosts) -> None:
    assert [each.lanes for each in hosts] == [[LANE], [LANE]]


def ask_httpx(url: str, **options: Any) -> None:
    with httpx.Client(follow_redirects=True, trust_env=False, **options) as client:
        assert client.get(f"{url}/to-other").status_code == 200


def ask_httpx_async(url: str, **options: Any) -> None:
    async def main() -> None:
        async with httpx.AsyncClient(follow_redirects=True, trust_env=False, **options) as client:
            assert (await client.get(f"{url}/to-other")).status_code == 200

    asyncio.run(main())


def ask_requests(url: str, adapter: HTTPAdapter | None = None) -> None:
    with requests.Session() as session:
        session.trust_env = False
        if adapter is not None:
            session.mount("http://", adapter)
        assert session.get(f"{url}/to-other").status_code == 200


def ask_urllib3(url: str) -> None:
    with urllib3.PoolManager() as pool:
        assert pool.request("GET", f"{url}/to-other").status == 200


def ask_urllib3_pool(url: str) -> None:
    """A pool of one host by itself follows the redirect in its own code, to the same address."""
    host, _, port = url.partition("//")[2].partition(":")
    with urllib3.HTTPConnectionPool(host, int(port)) as pool:
        assert pool.urlopen("GET", "/to-other", redirect=False).status == 307
        assert pool.urlopen("GET", "/end").status == 200


def ask_aiohttp(url: str, **options: Any) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession(**options) as session, session.get(f"{url}/to-other") as response:
            assert response.status == 200

    asyncio.run(main())


def ask_urllib(url: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/to-other") as response:
        assert response.status == 200


def test_httpx_event_hook_leaks(hosts: Hosts) -> None:
    ask_httpx(hosts[0].url, event_hooks={"request": [setting_for(hosts[0])]})
    assert_leaks(hosts)


def test_httpx_transport_that_only_sets_leaks(hosts: Hosts) -> None:
    class Setting(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            setting_for(hosts[0])(request)
            return super().handle_request(request)

    ask_httpx(hosts[0].url, transport=Setting())
    assert_leaks(hosts)


def setting_for(heard: Heard) -> Callable[[httpx.Request], None]:
    def put(request: httpx.Request) -> None:
        if request.url.port == int(heard.host.partition(":")[2]):
            request.headers.update(propagate.header())

    return put


def test_requests_adapter_that_sets_on_the_request_leaks(hosts: Hosts) -> None:
    class Setting(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
            if hosts[0].host in str(request.url):
                request.headers.update(propagate.header())
            return super().send(request, *args, **kwargs)

    ask_requests(hosts[0].url, Setting())
    assert_leaks(hosts)


def test_aiohttp_trace_config_leaks(hosts: Hosts) -> None:
    async def put(_: aiohttp.ClientSession, __: SimpleNamespace, params: aiohttp.TraceRequestStartParams) -> None:
        params.headers.update(propagate.header())

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(put)
    ask_aiohttp(hosts[0].url, trace_configs=[trace])
    assert_leaks(hosts)


@pytest.mark.parametrize("redirected", [True, False])
def test_headers_of_urllib_requests_leak_unless_unredirected(hosts: Hosts, redirected: bool) -> None:
    request = urllib.request.Request(f"{hosts[0].url}/to-other")
    for name, value in propagate.header().items():
        (request.add_header if redirected else request.add_unredirected_header)(name, value)
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).close()
    (assert_leaks if redirected else assert_told_once)(hosts)


def test_opentelemetry_baggage_leaks() -> None:
    """Its instrumentation sends the baggage of the context to every host."""
    with redirecting("baggage") as pair:
        HTTPXClientInstrumentor().instrument()
        token = context.attach(baggage.set_baggage("canary-lane", "svc"))
        try:
            ask_httpx(pair[0].url)
        finally:
            context.detach(token)
            HTTPXClientInstrumentor().uninstrument()
        assert [each.lanes for each in pair] == [["canary-lane=svc"], ["canary-lane=svc"]]


def test_httpx_transport_does_not_leak(hosts: Hosts) -> None:
    ask_httpx(hosts[0].url, transport=propagate.PropagatingTransport(httpx.HTTPTransport()))
    assert_told_once(hosts)


def test_httpx_async_transport_does_not_leak(hosts: Hosts) -> None:
    ask_httpx_async(hosts[0].url, transport=propagate.AsyncPropagatingTransport(httpx.AsyncHTTPTransport()))
    assert_told_once(hosts)


def test_requests_adapter_does_not_leak(hosts: Hosts) -> None:
    ask_requests(hosts[0].url, propagate.PropagatingAdapter())
    assert_told_once(hosts)


def test_aiohttp_middleware_does_not_leak(hosts: Hosts) -> None:
    ask_aiohttp(hosts[0].url, middlewares=[propagate.aiohttp_middleware])
    assert_told_once(hosts)


PATCHED: dict[str, Callable[[str], None]] = {
    "httpx": ask_httpx,
    "httpx async": ask_httpx_async,
    "httpx mounts": lambda url: ask_httpx(url, mounts={"http://": httpx.HTTPTransport()}),
    "httpx subclass": lambda url: ask_httpx(url, transport=type("Mine", (httpx.HTTPTransport,), {})()),
    "requests": ask_requests,
    "urllib3": ask_urllib3,
    "aiohttp": ask_aiohttp,
    "http.client": ask_urllib,
}
ALL = ("httpx", "urllib3", "aiohttp", "http.client")


@pytest.mark.parametrize("way", PATCHED)
def test_installed_clients_do_not_leak(hosts: Hosts, way: str) -> None:
    # Twice, as by two libraries.
    for _ in range(2):
        propagate.install([hosts[0].host], clients=ALL)
    PATCHED[way](hosts[0].url)
    assert_told_once(hosts)


def test_a_pool_of_urllib3_by_itself(hosts: Hosts) -> None:
    propagate.install(clients=["urllib3"])
    ask_urllib3_pool(hosts[0].url)
    assert hosts[0].lanes == [LANE, LANE]


@pytest.mark.parametrize("way", PATCHED)
def test_nothing_goes_to_a_host_off_the_list(hosts: Hosts, way: str) -> None:
    """The other way round: the first hop is to a host off the list."""
    propagate.uninstall()
    propagate.install([hosts[1].host], clients=ALL)
    PATCHED[way](hosts[0].url)
    assert [each.lanes for each in hosts] == [[None], [LANE]]


@pytest.mark.parametrize("way", PATCHED)
def test_uninstalled_clients_tell_nobody(hosts: Hosts, way: str) -> None:
    propagate.install([hosts[0].host], clients=ALL)
    propagate.uninstall()
    PATCHED[way](hosts[0].url)
    assert [each.lanes for each in hosts] == [[None], [None]]


def test_a_session_is_told_although_a_request_has_middlewares_of_its_own(hosts: Hosts) -> None:
    async def own(request: aiohttp.ClientRequest, handler: Callable[..., Awaitable[Any]]) -> aiohttp.ClientResponse:
        response: aiohttp.ClientResponse = await handler(request)
        return response

    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            # The session is older than the patch.
            propagate.install(clients=["aiohttp"])
            async with session.get(f"{hosts[0].url}/to-other", middlewares=(own,)) as response:
                assert response.status == 200

    asyncio.run(main())
    assert_told_once(hosts)


def test_the_request_of_the_app_stays_as_it_is(hosts: Hosts) -> None:
    """Two tasks may send one request, and an app may look at it, and send it elsewhere."""
    propagate.install(clients=ALL)
    with httpx.Client(trust_env=False) as client:
        request = client.build_request("GET", f"{hosts[0].url}/")
        response = client.send(request)
    assert NAME not in request.headers
    assert NAME not in response.request.headers
    given = {"a": "b"}
    with urllib3.PoolManager() as pool:
        pool.request("GET", f"{hosts[0].url}/", headers=given)
    assert given == {"a": "b"}
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", propagate.PropagatingAdapter())
        answer = session.get(f"{hosts[0].url}/")
    assert NAME not in answer.request.headers
    assert hosts[0].lanes == [LANE] * 3


def test_a_proxy_of_plain_http_hears_what_the_host_behind_may(hosts: Hosts) -> None:
    """The pool of a proxy sends to all hosts: the URL says which one."""
    proxy, other = hosts
    propagate.install(["shop.example"], clients=ALL)
    with urllib3.ProxyManager(proxy.url) as pool:
        for name in ("shop.example", "other.example"):
            assert pool.request("GET", f"http://{name}/").status == 200
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy.url}))
    for name in ("shop.example", "other.example"):
        opener.open(f"http://{name}/").close()
    assert proxy.lanes == [LANE, None] * 2
    assert other.lanes == []


def test_an_own_pool_of_a_proxy_takes_no_lane_along(hosts: Hosts) -> None:
    """It follows redirects by itself, with the headers of the request before."""
    proxy, other = hosts
    propagate.install(["shop.example"], clients=["urllib3"])
    with urllib3.ProxyManager(proxy.url) as manager:
        pool = manager.connection_from_host("shop.example", 80, "http")
        url = "http://shop.example/to-other"
        assert pool.urlopen("GET", url, headers={"k": "v"}, assert_same_host=False).status == 200
    assert proxy.lanes == [LANE, None]
    assert other.lanes == []


@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize("way", ["httpx", "httpx async"])
def test_an_instrumentation_beside_us(hosts: Hosts, way: str, ours_first: bool) -> None:
    """OpenTelemetry wraps the same methods, and looks at what it is called with."""
    tracer, exporter = TracerProvider(), InMemorySpanExporter()
    tracer.add_span_processor(SimpleSpanProcessor(exporter))
    if ours_first:
        propagate.install(clients=["httpx"])
    HTTPXClientInstrumentor().instrument(tracer_provider=tracer)
    propagate.install(clients=["httpx"])
    try:
        PATCHED[way](hosts[0].url)
        assert_told_once(hosts)
        assert len(exporter.get_finished_spans()) == 2
    finally:
        # Who was last goes first.
        if not ours_first:
            propagate.uninstall()
        HTTPXClientInstrumentor().uninstrument()


def test_what_patched_after_us_stays(hosts: Hosts) -> None:
    """As an instrumentation does; ours is then below it, and does nothing more."""
    propagate.install(clients=["httpx"])
    ours = httpx.HTTPTransport.handle_request

    def theirs(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        return ours(self, request)

    original = httpx.HTTPTransport.__dict__["handle_request"].__wrapped__
    httpx.HTTPTransport.handle_request = theirs  # type: ignore[method-assign]
    try:
        propagate.uninstall()
        assert httpx.HTTPTransport.handle_request is theirs
        propagate.install([hosts[0].host], clients=())
        ask_httpx(hosts[0].url)
        assert hosts[0].lanes == [None]
    finally:
        httpx.HTTPTransport.handle_request = original  # type: ignore[method-assign]
