"""Requests that two parsers read differently: whoever the server is, no origin gets one of them as it came.

Ours refuses them all. Behind another server the middleware refuses what that server lets by; what the server itself has
repaired, a folded line or two equal lengths, may pass as long as the origin gets it in one unambiguous form. A WSGI app
cannot end a connection, so there a refusal leaves that to the server, which knows where the request ends.
"""

import socket
import time
from collections.abc import Iterator

import pytest
from running_proxy import PARAMS, RunningProxy, get, running_proxy
from wire import faults, new_token

HIDDEN = b"GET /svc/{hidden} HTTP/1.1\r\nHost: proxy.test\r\n\r\n"
BEHIND_CHUNKS = b"0\r\n\r\n" + HIDDEN


@pytest.fixture(scope="module", params=PARAMS)
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    with running_proxy(request.param, tmp_path_factory.mktemp("proxy")) as running:
        yield running


def post(*fields: bytes, body: bytes = b"") -> bytes:
    """A POST; `{length}` in a field is that of the body with its tokens in it."""
    return b"\r\n".join([b"POST /svc/{token} HTTP/1.1", b"Host: proxy.test", *fields, b"", body])


CODINGS = [
    *(b"xchunked", b"identity", b"chunked, identity", b"identity, chunked", b",chunked", b"gzip, chunked", b""),
    *(b"\x0bchunked", b"\xa0chunked", b'"chunked"', b"chunked;q=1", b"chunked\r\nTransfer-Encoding: identity"),
    b"chunked\r\nTransfer-Encoding: chunked",
]
LENGTHS = [b"+5", b"-5", b"0x5", b"1_0", b"5 5", b"5abc", b"", b"5.0", b"18446744073709551621", b"5,", b"5, 6", b"5, 5"]
SIZES = [
    *(b"0x5\r\nabcde", b"+5\r\nabcde", b"-5\r\nabcde", b"0_5\r\nabcde", b"5zz\r\nabcde", b"\r\nabcde", b"5\r\nabcdeXX"),
    *(b"10000000000000005\r\nabcde", b"5\r\nabc", b"5;a\nb\r\nabcde", b"5\nabcde", b"5;\0\r\nabcde"),
]
FIELDS = [
    *(b"Content-Length : 5", b"Content-Length: 0\r\nTransfer-Encoding : chunked", b"Foo", b": x", b"X Y: x"),
    *(b"X: one\r\n two", b"X: one\r\n\tTransfer-Encoding: chunked", b"Transfer-Encoding:\r\n chunked", b"X\xe4: a"),
    *(b"X: 1\nY: 2", b"X: 1\rY: 2", b"X: 1\x002", b"X: 1\x012", b"X: 1\x7f2", b"Host: proxy.test", b"Host: evil.test"),
]
HOSTS = [b"a b<", b"", b"a@b", b"a/b", b"a,b", b"a:b:c", b"[::1", b"a:99999", b"a\\b"]
LINES = [
    *(b"CONNECT proxy.test:80 HTTP/1.1", b"get /svc/{token} HTTP/1.1", b"FOO /svc/{token} HTTP/1.1"),
    *(b"GET /svc/{token}\r HTTP/1.1", b"GET /svc/{token}#a HTTP/1.1", b"GET /svc/\xc3\xa4{token} HTTP/1.1"),
    *(b"GET /svc/{token} HTTP/1.2", b"GET /svc/{token} HTTP/2.0", b"GET svc/{token} HTTP/1.1"),
    *(b"GET ftp://proxy.test/svc/{token} HTTP/1.1", b"GET /svc/{token} x HTTP/1.1", b"GET\t/svc/{token} HTTP/1.1"),
]
CASES = {
    "CL.TE": post(b"Content-Length: {length}", b"Transfer-Encoding: chunked", body=BEHIND_CHUNKS),
    "TE.CL": post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"2a\r\n" + b"x" * 42 + b"\r\n0\r\n\r\n"),
    "TE in HTTP/1.0": post(b"Transfer-Encoding: chunked", body=BEHIND_CHUNKS).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "CL 0 and CL": post(b"Content-Length: 0", b"Content-Length: {length}", body=HIDDEN),
    "CL and CL 0": post(b"Content-Length: {length}", b"Content-Length: 0", body=HIDDEN),
    "CL twice": post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"),
    "no Host": b"GET /svc/{token} HTTP/1.1\r\nX: y\r\n\r\n",
    "folded first line": b"GET /svc/{token} HTTP/1.1\r\n X: y\r\nHost: proxy.test\r\n\r\n",
    "bare LF": b"GET /svc/{token} HTTP/1.1\nHost: proxy.test\n\n",
    **{
        f"TE {coding!r}": post(b"Content-Length: {length}", b"Transfer-Encoding: " + coding, body=BEHIND_CHUNKS)
        for coding in CODINGS
    },
    **{f"TE {coding!r} alone": post(b"Transfer-Encoding: " + coding, body=BEHIND_CHUNKS) for coding in CODINGS},
    **{f"CL {length!r}": post(b"Content-Length: " + length, body=b"abcde") for length in LENGTHS},
    **{f"chunk {size!r}": post(b"Transfer-Encoding: chunked", body=size + b"\r\n0\r\n\r\n") for size in SIZES},
    **{f"field {field!r}": post(field, b"Content-Length: 0") for field in FIELDS},
    **{f"Host {host!r}": b"GET /svc/{token} HTTP/1.1\r\nHost: " + host + b"\r\n\r\n" for host in HOSTS},
    **{f"line {line!r}": line + b"\r\nHost: proxy.test\r\n\r\n" for line in LINES},
}


WAITRESS_WAITS = [
    *("bare LF", "field b'Transfer-Encoding:\\r\\n chunked'", "chunk b'10000000000000005\\r\\nabcde'"),
    "chunk b'\\r\\nabcde'",
]
_TWICE = "TE b'chunked\\r\\nTransfer-Encoding: chunked'"
WAITRESS_DECODES = [
    *("CL.TE", "TE b''", "TE b',chunked'", "TE b',chunked' alone"),
    *(_TWICE, f"{_TWICE} alone"),
]
WAITRESS_ASKS_NOBODY = "waitress takes the coding for chunked or for none, and hides it from the app"
# What the server itself gets wrong before any app is asked, and what helps.
SERVERS_FAULTS = {
    ("h11", "chunk b'10000000000000005\\r\\nabcde'"): "h11 waits for a chunk of 2^64 bytes; --http httptools",
    ("gunicorn", "chunk b'10000000000000005\\r\\nabcde'"): "gunicorn waits for a chunk of 2^64 bytes",
    ("gunicorn", "TE b'identity, chunked' alone"): "gunicorn takes it for chunked",
    **{("waitress", case): "waitress waits for more until its channel_timeout" for case in WAITRESS_WAITS},
    **{("waitress", case): WAITRESS_ASKS_NOBODY for case in WAITRESS_DECODES},
    ("httptools", "endless"): "uvicorn with httptools reads it for ever; --http h11",
    ("httptools", "trailers"): "uvicorn with httptools makes headers of those that come with the head; --http h11",
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_ambiguous_is_refused_or_leaves_in_one_reading(proxy: RunningProxy, case: str) -> None:
    if fault := SERVERS_FAULTS.get((proxy.kind, case)):
        pytest.skip(fault)
    token, hidden = new_token(), new_token()
    raw = CASES[case].replace(b"{token}", token).replace(b"{hidden}", hidden)
    raw = raw.replace(b"{length}", b"%d" % len(raw.partition(b"\r\n\r\n")[2]))
    with proxy.client() as client:
        client.send(raw)
        answer = client.answer()
        ended = answer.all("connection") == ["close"] or answer.status == 0
        if ended:
            assert client.closed()
        elif proxy.wsgi:
            # Whatever else it makes of these bytes is made before it ends.
            client.sock.shutdown(socket.SHUT_WR)
            client.read()
    assert answer.status < 500 or answer.status in (501, 505)
    assert proxy.requests(hidden) == [] or b"Content-Length: 0" in raw, "the hidden request was executed"
    reached = proxy.requests(token)
    if not reached or 400 <= answer.status < 500:
        assert 400 <= answer.status < 506 or answer.status == 0
        assert ended or proxy.wsgi, "the connection goes on behind a request whose end nobody knows"
        # A body may turn out to be broken when its head is on the way already.
        assert not reached or case.startswith("chunk")
        assert not any(request.endswith(b"\r\n0\r\n\r\n") for request in reached)
        return
    assert not proxy.ours, "ours refuses it"
    (request,) = reached
    assert faults(request) == []


@pytest.mark.parametrize("at_once", [True, False], ids=["with the head", "later"])
def test_trailers_are_no_headers(proxy: RunningProxy, at_once: bool, request: pytest.FixtureRequest) -> None:
    if at_once and (fault := SERVERS_FAULTS.get((proxy.kind, "trailers"))):
        request.applymarker(pytest.mark.xfail(reason=fault, strict=True))
    if proxy.kind == "waitress" and not at_once:
        pytest.skip("waitress passes no request on before its end")
    token = new_token()
    head = post(b"Transfer-Encoding: chunked", body=b"2\r\nhi\r\n").replace(b"{token}", token)
    with proxy.client() as client:
        if not at_once:
            client.send(head)
            while not proxy.requests(token):
                time.sleep(0.001)
            head = b""
        client.send(head + b"0\r\ngray: true\r\nAuthorization: me\r\n\r\n")
        answer = client.answer()
        if proxy.kind == "gunicorn":
            # It refuses a trailer that must not be one (RFC 9110, section 6.5.1).
            assert answer.status == 400
            return
        echo = answer.echo
        client.send(get(new_token()))
        assert client.answer().status == 200
    assert (echo["who"], echo["body"]) == ("stable", "hi")
    assert "authorization" not in dict(echo["headers"])


@pytest.mark.parametrize("part", ["header", "target", "fields"])
def test_a_head_that_is_too_large_is_refused(proxy: RunningProxy, part: str) -> None:
    token = new_token()
    if part == "target":
        raw = get(token + b"?" + b"a" * 200_000)
    else:
        raw = get(token, *([b"X: " + b"a" * 200_000] if part == "header" else [b"X-%d: a" % n for n in range(200)]))
    if (proxy.kind, part) == ("waitress", "target"):
        pytest.skip("waitress takes heads of 256 KiB; --max-request-header-size=65536")
    answer = proxy.ask(raw)
    assert answer.status in (400, 414, 431, 0)
    assert proxy.requests(token) == []
    assert answer.status == 431 or not proxy.ours


def test_an_endless_head_is_refused(proxy: RunningProxy) -> None:
    if fault := SERVERS_FAULTS.get((proxy.kind, "endless")):
        pytest.skip(fault)
    token = new_token()
    with proxy.client() as client:
        client.send(get(token)[:-2] + b"X: y\r\n" * 300_000)
        answer = client.answer()
        assert client.closed()
    assert answer.status in (400, 431, 0)
    assert proxy.requests(token) == []


def test_nothing_behind_connection_close_is_executed(proxy: RunningProxy) -> None:
    token = new_token()
    with proxy.client() as client:
        client.send(get(new_token(), b"Connection: close") + get(token))
        assert client.answer().status == 200
        assert client.closed()
    assert proxy.requests(token) == []


@pytest.mark.parametrize("upgrade", [b"h2c", b"foo/2"])
def test_an_upgrade_is_not_forwarded(proxy: RunningProxy, upgrade: bytes) -> None:
    headers = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + upgrade, b"HTTP2-Settings: AAMAAABk")
    token = new_token()
    answer = proxy.ask(get(token, *headers))
    assert answer.status in (200, 403)
    assert not any(b"upgrade" in request.lower() or b"http2" in request.lower() for request in proxy.requests(token))


@pytest.mark.parametrize("target", [b"http://other.test/svc/", b"//other.test/../svc/", b"HTTP://127.0.0.1:1/svc/"])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_the_authority_of_a_target_chooses_nothing(proxy: RunningProxy, target: bytes, version: bytes) -> None:
    token = new_token()
    answer = proxy.ask(get(token, version=version).replace(b"/svc/", target))
    if target.startswith(b"/"):
        assert answer.status in (200, 400, 404)
    elif not proxy.ours and proxy.kind != "httptools":
        assert answer.status == 400
    else:
        # It takes the place of Host, which is no upstream either. Under httptools nobody sees it.
        host = "proxy.test" if proxy.kind == "httptools" else target.split(b"/")[2].decode()
        assert answer.echo["line"] == f"GET /{token.decode()} HTTP/1.1"
        assert dict(answer.echo["headers"])["host"] == host


@pytest.mark.parametrize("target", [b"http://proxy.test/svc/", b"HTTP://Proxy.Test:80/svc/"])
def test_an_absolute_target_for_the_same_host_is_served(proxy: RunningProxy, target: bytes) -> None:
    token = new_token()
    echo = proxy.ask(get(token).replace(b"/svc/", target)).echo
    assert echo["line"] == f"GET /{token.decode()} HTTP/1.1"
    assert dict(echo["headers"])["host"].lower().startswith("proxy.test")


@pytest.mark.parametrize("authority", [b"me@proxy.test", b"me:pw@proxy.test", b"", b"proxy.test:99999", b"a,b"])
def test_an_authority_that_is_no_host_is_refused(proxy: RunningProxy, authority: bytes) -> None:
    token = new_token()
    answer = proxy.ask(get(token).replace(b"/svc/", b"http://%b/svc/" % authority))
    # Under httptools nobody sees it.
    if proxy.kind != "httptools":
        assert answer.status in (400, 404)
        assert proxy.requests(token) == []
