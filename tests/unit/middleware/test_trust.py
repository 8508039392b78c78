"""Whose headers count, on real connections: what an outsider may not send reaches neither rules nor anybody behind."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from servers import Client, Pairs, Server, free_port, mapping, process, respond, run
from upstream import until
from uvicorn import Config
from websockets.asyncio.client import connect
from wsgiservers import respond as wsgi_respond
from wsgiservers import serving_wsgi

from canary_mw.control.sources.static import StaticSource
from canary_mw.forwarding.trusted_headers import SIGNATURE, TrustedHeaders
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.wsgi.environ import environ_key
from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware
from canary_mw.server.app import Proxy
from canary_mw.server.settings import Settings
from canary_mw.types import Environ, Receive, Scope, Send, StartResponse

WS = {"use_websocket": "true"}
RULES = (
    mapping("stable", "/shop/", "shop-stable", **WS)
    + mapping("testers", "/shop/", "shop-gray", headers="{gray: 'true'}", **WS)
    + mapping("forwarded", "/forwarded/", "shop-gray", **WS)
    + mapping("copied", "/copied/", "shop-gray")
    + mapping("copy", "/copied/", "shop-dark", shadow="true")
)
OUTSIDER, INGRESS = "127.0.0.1", "127.0.0.2"
KEY = "5" * 64
CLAIMS = [("gray", "true"), ("x-user-group", "staff"), ("x-user_group", "staff")]
GUARDED = {"trusted": [INGRESS], "trusted_headers": ["gray", "X-User-Group"]}
KINDS = ("middleware", "wsgi", "proxy")
WEBSOCKET_KINDS = ("middleware", "proxy")


class Answer(NamedTuple):
    """Who answered, and the guarded headers that it got."""

    name: str
    got: dict[str, str]


class Service:
    """An app that answers with its name and the headers that this is about."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[dict[str, str]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] in ("http", "websocket"), "no lifespan here"
        if scope["type"] == "http":
            while (await receive()).get("more_body"):
                pass
        names = (b"gray", b"x-user-group", b"x-user_group", SIGNATURE)
        self.seen.append({name.decode(): value.decode() for name, value in scope["headers"] if name in names})
        text = json.dumps((self.name, self.seen[-1]))
        if scope["type"] == "http":
            await respond(send, text.encode())
        else:
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": text})
            await send({"type": "websocket.close"})


def wsgi_service(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The stable service as a WSGI app."""
    names = ("gray", "x-user-group", SIGNATURE.decode())
    got = {name: environ[key] for name in names if (key := environ_key(name.encode())) in environ}
    return wsgi_respond(start_response, json.dumps(("stable", got)).encode())


class World(NamedTuple):
    """A middleware or proxy in front of the stable service (or around it), with the other services as its upstreams."""

    port: int
    dark: Service

    async def ask(self, target: str = "/shop/", headers: Pairs = CLAIMS, peer: str = OUTSIDER) -> Answer:
        """Send a request from an address of this machine."""
        return await asked(self.port, target, headers, peer)

    async def ask_websocket(self, target: str = "/shop/", headers: Pairs = CLAIMS, peer: str = OUTSIDER) -> Answer:
        """The same by websocket."""
        url = f"ws://127.0.0.1:{self.port}{target}"
        headers = list(headers)
        async with connect(url, proxy=None, additional_headers=headers, local_addr=(peer, 0)) as websocket:
            return Answer(*json.loads(await websocket.recv()))


async def asked(port: int, target: str, headers: Pairs, peer: str) -> Answer:
    client = Client(*await asyncio.open_connection("127.0.0.1", port, local_addr=(peer, 0)))
    try:
        return Answer(*json.loads((await client.get("GET", target, headers)).body))
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def serving_apps(*apps: Any) -> AsyncIterator[list[int]]:
    """Serve each on a port of its own; all end at once, which takes a tenth of a second however many they are."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in apps]
    servers = [Server(Config(app, lifespan="off", log_config=None, proxy_headers=False)) for app in apps]
    tasks = [
        asyncio.create_task(server.serve(sockets=[listener]))
        for server, listener in zip(servers, listeners, strict=True)
    ]
    try:
        await until(lambda: all(server.started for server in servers) or any(task.done() for task in tasks))
        yield [listener.getsockname()[1] for listener in listeners]
    finally:
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def world(kind: str = "middleware", rules: str = RULES, **options: Any) -> AsyncIterator[World]:
    """Options are those of the middlewares, the proxy gets them as settings."""
    stable, gray, dark = Service("stable"), Service("gray"), Service("dark")
    options = GUARDED | options

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    async with serving_apps(stable, gray, dark, front) as ports:
        urls = {
            f"shop-{each.name}": f"http://127.0.0.1:{port}"
            for each, port in zip((stable, gray, dark), ports, strict=False)
        }
        if kind == "proxy":
            options["forwarded_allow_ips"] = tuple(options.pop("trusted"))
            options["trusted_headers"] = tuple(options["trusted_headers"])
            app: Any = Proxy(Settings(upstream=tuple(f"{name}={url}" for name, url in urls.items()), **options))
            app.store.source = StaticSource(rules)
            middleware = app._middleware
        elif kind == "wsgi":
            app = CanaryWSGIMiddleware(
                wsgi_service, rules=StaticSource(rules), upstreams=urls, local="shop-stable", **options
            )
        else:
            options.setdefault("local", "shop-stable")
            app = middleware = CanaryMiddleware(stable, rules=StaticSource(rules), upstreams=urls, **options)
        if kind == "wsgi":
            async with serving_wsgi(app) as port:
                yield World(port, dark)
            app.close()
        else:
            yield World(ports[-1], dark)
            await middleware.aclose()
        app.store.stop()


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "keys"
    path.write_text(KEY)
    return str(path)


def signed(expires: int = 9_999_999_999) -> list[tuple[str, str]]:
    known = TrustedHeaders.from_settings(["gray"], [KEY.encode()])
    assert known is not None
    value, signature = known.sign("gray", "true", expires)
    return [("gray", value), (SIGNATURE.decode(), signature)]


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_setting_whoever_sends_the_header_gets_the_gray_version(kind: str) -> None:
    async def main() -> None:
        async with world(kind, trusted_headers=[]) as there:
            answer = await there.ask()
            assert (answer.name, answer.got["gray"], answer.got["x-user-group"]) == ("gray", "true", "staff")

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_an_outsider_who_sends_a_trusted_header_gets_the_stable_version(kind: str) -> None:
    async def main() -> None:
        async with world(kind) as there:
            # The stable service is the wrapped app of the one, and an upstream of the other.
            assert await there.ask() == ("stable", {})
            assert await there.ask(peer=INGRESS) == ("gray", dict(CLAIMS[:2]))

    run(main())


@pytest.mark.parametrize("kind", WEBSOCKET_KINDS)
def test_websockets_get_no_untrusted_header(kind: str) -> None:
    async def main() -> None:
        async with world(kind) as there:
            assert await there.ask_websocket() == ("stable", {})
            assert await there.ask_websocket(peer=INGRESS) == ("gray", dict(CLAIMS[:2]))
            assert await there.ask_websocket("/forwarded/") == ("gray", {})

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_upstream_and_shadow_get_no_header_that_was_not_trusted(kind: str) -> None:
    async def main() -> None:
        async with world(kind) as there:
            assert await there.ask("/forwarded/") == ("gray", {})
            assert await there.ask("/copied/") == ("gray", {})
            assert await there.ask("/copied/", peer=INGRESS) == ("gray", dict(CLAIMS[:2]))
            await until(lambda: len(there.dark.seen) == 2)
            assert there.dark.seen == [{}, dict(CLAIMS[:2])]

    run(main())


def test_an_app_of_this_process_gets_none_either() -> None:
    async def main() -> None:
        async with world(services={"shop-gray": Service("here")}) as there:
            assert await there.ask("/forwarded/") == ("here", {})
            assert await there.ask_websocket("/forwarded/") == ("here", {})
            assert await there.ask(peer=INGRESS) == ("here", dict(CLAIMS[:2]))

    run(main())


def test_a_request_that_matches_nothing_is_no_exception() -> None:
    async def main() -> None:
        async with world() as there:
            assert await there.ask("/none/") == ("stable", {})
            assert await there.ask_websocket("/none/") == ("stable", {})

    run(main())


def test_rules_cannot_make_everybody_trusted() -> None:
    module = "---\napiVersion: getambassador.io/v2\nkind: Module\nname: ambassador\nconfig: {xff_num_trusted_hops: 1}\n"

    async def main() -> None:
        async with world(rules=RULES + module) as there:
            assert await there.ask() == ("stable", {})

    run(main())


def test_a_trailer_does_not_bring_it_in() -> None:
    async def main() -> None:
        async with world() as there:
            client = Client(*await asyncio.open_connection("127.0.0.1", there.port))
            head = b"POST /shop/ HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"
            end = b"0\r\nGray: true\r\n\r\n"
            # Some servers make headers of trailers, sent with the head or after it.
            for segments in ([head + end], [head, end]):
                for segment in segments:
                    await client.put(segment)
                    await asyncio.sleep(0.01)
                assert b'["stable", {}]' in await client.reader.readuntil(b"}]")
            await client.close()

    run(main())


def test_a_peer_without_address_is_not_trusted() -> None:
    async def main() -> None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b""}

        scope: Scope = {"type": "http", "method": "GET", "path": "/shop/", "query_string": b"", "http_version": "1.1"}
        headers = [(b"host", b"shop"), (b"gray", b"true")]
        options: Any = {"local": "shop-stable", "rules": StaticSource(RULES), **GUARDED}
        middleware = CanaryMiddleware(Service("stable"), **options)
        await middleware({**scope, "headers": headers}, receive, send)
        await middleware.aclose()
        assert sent[1]["body"] == b'["stable", {}]'

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_signed_header_counts_from_anybody_and_a_bare_one_from_nobody(kind: str, key_file: str) -> None:
    async def main() -> None:
        async with world(kind, header_key_file=key_file) as there:
            for peer in (OUTSIDER, INGRESS):
                assert await there.ask(peer=peer) == ("stable", {})
                assert await there.ask(headers=signed(), peer=peer) == ("gray", dict(signed()))
                if kind in WEBSOCKET_KINDS:
                    assert await there.ask_websocket(headers=signed(), peer=peer) == ("gray", dict(signed()))
            assert (await there.ask(headers=signed(expires=1_700_000_000))).name == "stable"

    run(main())


def test_the_next_hop_verifies_the_signature_again(key_file: str) -> None:
    async def main() -> None:
        async with world(header_key_file=key_file, local="shop-gray", hop_id="gray") as behind:
            rules = RULES.replace("service: shop-gray", "service: shop-pods")
            pods = {"shop-pods": f"http://127.0.0.1:{behind.port}", "*": "http://127.0.0.1:1"}
            options: Any = {"header_key_file": key_file, "local": "shop-stable", "hop_id": "first", **GUARDED}
            first = CanaryMiddleware(Service("first"), rules=StaticSource(rules), upstreams=pods, **options)
            async with serving_apps(first) as (port,):
                # Both have the keys; the one behind wraps the app that says "stable" and is the gray service.
                assert (await asked(port, "/shop/", signed(), OUTSIDER)) == ("stable", dict(signed()))
                assert (await asked(port, "/shop/", CLAIMS, OUTSIDER)) == ("first", {})
            await first.aclose()

    run(main())


def test_serve_takes_it_from_options_and_variables(tmp_path: Path, key_file: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    bare, sealed = free_port(), free_port()

    async def main() -> None:
        async with serving_apps(Service("stable"), Service("gray")) as (one, two):
            options = ["serve", "--rules", str(path), "--upstream", f"shop-stable=http://127.0.0.1:{one}"]
            options += ["--upstream", f"shop-gray=http://127.0.0.1:{two}", "--port"]
            guarded = ["--trusted-headers", "gray,X-User-Group", "--forwarded-allow-ips", INGRESS]
            environ: Any = {"CANARY_MW_TRUSTED_HEADERS": "gray, x-user-group", "CANARY_MW_HEADER_KEY_FILE": key_file}
            with (
                process(*options, str(bare), *guarded, log=tmp_path / "bare") as first,
                process(*options, str(sealed), log=tmp_path / "sealed", **environ) as second,
            ):
                await asyncio.to_thread(first.wait_for_port, bare)
                await asyncio.to_thread(second.wait_for_port, sealed)
                assert await asked(bare, "/shop/", CLAIMS, OUTSIDER) == ("stable", {})
                assert await asked(bare, "/shop/", CLAIMS, INGRESS) == ("gray", dict(CLAIMS[:2]))
                assert await asked(sealed, "/shop/", CLAIMS, OUTSIDER) == ("stable", {})
                assert await asked(sealed, "/shop/", signed(), OUTSIDER) == ("gray", dict(signed()))

    run(main())
