"""What passes a proxy: nothing is lost, added or held back, and no cut response looks complete."""

import gzip
import threading
import time
from collections.abc import Iterator

import pytest
from running_proxy import PARAMS, Client, RunningProxy, get, running_proxy
from wire import Head, Line, Script, body_of, chunked, new_token

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
# Faults of the servers themselves, and what avoids them; standalone avoids both.
OLD_CLIENTS_GET_ENDS = "uvicorn with h11 ends a cut answer to an HTTP/1.0 client in good order; --http httptools"
OLD_CLIENTS_GET_CHUNKS = "uvicorn with httptools sends HTTP/1.0 clients chunks; --http h11"
WSGI_ENDS_TOO = "a WSGI server ends a cut answer to an HTTP/1.0 client in good order, if it has no length"
# What WSGI does not offer.
BODY_IN_FULL_CHUNKS = "an app that reads a body waits for a full chunk of it; waitress waits for all of it"
READS_OR_ANSWERS = "a thread that waits for the body sees no answer"
NO_DISCONNECT_REPORTED = "an app learns that its client has left when it has something to send"
CLOSES_WITHOUT_LENGTH = "waitress ends the connection behind every answer without a body or with a shorter one"


@pytest.fixture(scope="module", params=PARAMS)
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    with running_proxy(request.param, tmp_path_factory.mktemp("proxy")) as running:
        yield running


def scripted(proxy: RunningProxy, script: Script) -> bytes:
    """A token whose requests the stable origin serves so."""
    token = new_token()
    proxy.stable.scripts[token] = script
    return token


def saying(*chunks: bytes, end: bool = False) -> Script:
    """Answer with these bytes once the request is read, and perhaps leave."""

    def script(line: Line, head: Head) -> None:
        body_of(line, head)
        for chunk in chunks:
            line.send(chunk)
        if end:
            line.close()

    return script


def upload(token: bytes, *fields: bytes) -> bytes:
    return get(token, *fields, method=b"POST")


@pytest.mark.parametrize(
    ("header", "who"),
    [(b"X: y", "stable"), (b"GRAY:  true \t", "gray"), (b"gray: TRUE", "stable"), (b"gray:", "stable")],
)
def test_the_header_chooses(proxy: RunningProxy, header: bytes, who: str) -> None:
    assert proxy.ask(get(new_token(), header)).echo["who"] == who


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "GET"])
def test_method_and_body_arrive(proxy: RunningProxy, method: str) -> None:
    raw = get(new_token(), b"Content-Length: 5", method=method.encode()) + b"hello"
    echo = proxy.ask(raw).echo
    assert echo["line"].startswith(f"{method} /tk")
    assert echo["body"] == "hello"


def test_no_one_claims_to_be_somebody_else(proxy: RunningProxy) -> None:
    forged = [
        b"X-Forwarded-For: 6.6.6.6",
        b"X-Forwarded-Proto: https",
        b"X-Real-IP: 6.6.6.6",
        b"Forwarded: for=6.6.6.6",
    ]
    forged += [
        b"%b: 6.6.6.6" % name for name in (b"X_Forwarded_For", b"X-Forwarded_For", b"X_Forwarded-Host", b"X-Real_IP")
    ]
    answer = proxy.ask(get(new_token(), *forged), source="127.0.0.2")
    headers = answer.echo["headers"]
    assert [value for name, value in headers if name == "x-forwarded-for"] == ["127.0.0.2"]
    assert dict(headers)["x-forwarded-proto"] == "http"
    assert "6.6.6.6" not in str(headers)


def test_headers_for_this_hop_stop_here(proxy: RunningProxy) -> None:
    hop = [
        b"Connection: keep-alive, X-Hop, Host, X-Forwarded-For",
        b"X-Hop: 1",
        b"Keep-Alive: timeout=9",
        b"TE: trailers",
    ]
    headers = dict(proxy.ask(get(new_token(), *hop, b"X-End: stays")).echo["headers"])
    assert {"x-hop", "keep-alive", "te"}.isdisjoint(headers)
    assert (headers["host"], headers["x-end"]) == ("proxy.test", "stays")
    assert "x-forwarded-for" in headers

    back = b"HTTP/1.1 200 OK\r\nConnection: close, X-Up\r\nX-Up: 1\r\nX-End: stays\r\nContent-Length: 2\r\n\r\nhi"
    with proxy.client() as client:
        for _ in range(2):
            client.send(get(scripted(proxy, saying(back, end=True))))
            answer = client.answer()
            assert (answer.body, answer.all("x-up"), answer.all("x-end")) == (b"hi", [], ["stays"])


def test_bodies_and_repeated_headers_pass_unchanged(proxy: RunningProxy) -> None:
    body = gzip.compress(b"hello " * 1000)
    fields = b"Content-Encoding: gzip\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2; Expires=Wed, 09 Jun 2032 10:18:14 GMT\r\n"
    head = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (fields, len(body))
    answer = proxy.ask(get(scripted(proxy, saying(head + body))))
    assert answer.body == body
    assert answer.all("content-encoding") == ["gzip"]
    assert answer.all("set-cookie") == ["a=1", "b=2; Expires=Wed, 09 Jun 2032 10:18:14 GMT"]


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 123456\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5000\r\n\r\n"),
    ],
)
def test_answers_without_body_stay_in_step(proxy: RunningProxy, method: str, head: bytes) -> None:
    if proxy.kind == "waitress" and method == "GET":
        pytest.skip(CLOSES_WITHOUT_LENGTH)
    token = scripted(proxy, saying(head))
    with proxy.client() as client:
        for _ in range(2):
            client.send(get(token, method=method.encode()))
            answer = client.answer(method)
            assert answer.status == int(head[9:12])
            assert answer.all("transfer-encoding") == []
            client.send(get(new_token()))
            assert client.answer().echo["who"] == "stable"


def test_pipelined_answers_come_in_order(proxy: RunningProxy) -> None:
    tokens = [new_token() for _ in range(5)]
    with proxy.client() as client:
        client.send(b"".join(get(token) for token in tokens))
        for token in tokens:
            assert token.decode() in client.answer().echo["line"]


@pytest.mark.parametrize(
    "raw", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
)
def test_http_1_0_clients_get_no_chunks(proxy: RunningProxy, raw: bytes) -> None:
    token = scripted(proxy, saying(b"HTTP/1.1 200 OK\r\n" + raw))
    with proxy.client() as client:
        client.send(get(token, version=b"1.0"))
        answer = client.answer()
        assert (answer.body, answer.whole, answer.all("transfer-encoding")) == (b"hello", True, [])
        assert client.closed()


def test_http_1_0_clients_get_no_chunks_of_a_stream(proxy: RunningProxy, request: pytest.FixtureRequest) -> None:
    if proxy.kind == "httptools":
        request.applymarker(pytest.mark.xfail(reason=OLD_CLIENTS_GET_CHUNKS, strict=True))
    go_on = threading.Event()

    def script(line: Line, head: Head) -> None:
        line.send(CHUNKED + b"2\r\nhi\r\n")
        go_on.wait(20)
        line.send(b"2\r\nho\r\n0\r\n\r\n")

    with proxy.client() as client:
        client.send(get(scripted(proxy, script), version=b"1.0"))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.read(1)
        go_on.set()
        assert client.read() == b"hiho"


def test_100_continue_comes_before_the_body(proxy: RunningProxy) -> None:
    with proxy.client() as client:
        client.send(upload(new_token(), b"Content-Length: 5", b"Expect: 100-continue"))
        assert client.readline().startswith(b"HTTP/1.1 100 ")
        while client.readline() != b"\r\n":
            pass
        client.send(b"hello")
        echo = client.answer().echo
    assert echo["body"] == "hello"
    assert "expect" not in dict(echo["headers"])


def test_events_come_one_by_one(proxy: RunningProxy) -> None:
    go_on = threading.Semaphore(0)

    def script(line: Line, head: Head) -> None:
        line.send(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: text/event-stream\r\n\r\n"))
        for number in range(3):
            go_on.acquire(timeout=20)
            line.send(b"9\r\ndata: %d\n\n\r\n" % number)
        line.send(b"0\r\n\r\n")

    with proxy.client() as client:
        client.send(get(scripted(proxy, script)))
        # The head is here before the first event is, but for WSGI, which sends both together.
        if proxy.wsgi:
            go_on.release()
        while client.readline() != b"\r\n":
            pass
        for number in range(3):
            if number or not proxy.wsgi:
                go_on.release()
            assert client.read(14) == b"9\r\ndata: %d\n\n\r\n" % number
        assert client.read(5) == b"0\r\n\r\n"


def test_an_upload_flows_while_it_comes(proxy: RunningProxy) -> None:
    if proxy.wsgi:
        pytest.skip(BODY_IN_FULL_CHUNKS)
    first = threading.Event()

    def script(line: Line, head: Head) -> None:
        chunks = chunked(line)
        assert next(chunks) == b"first"
        first.set()
        rest = b"".join(chunks)
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(rest), rest))

    with proxy.client() as client:
        client.send(upload(scripted(proxy, script), b"Transfer-Encoding: chunked") + b"5\r\nfirst\r\n")
        assert first.wait(20)
        client.send(b"4\r\nlast\r\n0\r\n\r\n")
        assert client.answer().body == b"last"


def test_an_early_answer_reaches_a_client_that_still_sends(proxy: RunningProxy) -> None:
    if proxy.wsgi:
        pytest.skip(READS_OR_ANSWERS)

    def script(line: Line, head: Head) -> None:
        line.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
        while line.more():
            pass

    token = scripted(proxy, script)
    with proxy.client() as client:
        client.send(upload(token, b"Content-Length: 100000000") + b"x" * 100_000)
        answer = client.answer()
    assert (answer.status, answer.body) == (413, b"big")


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc",
        CHUNKED,
        CHUNKED + b"3\r\nabc\r\n",
        CHUNKED + b"3\r\nabc\r\nzz\r\n",
    ],
)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_truncated_answer_does_not_look_whole(
    proxy: RunningProxy, said: bytes, version: bytes, request: pytest.FixtureRequest
) -> None:
    if (proxy.kind, version) == ("h11", b"1.0") and said.startswith(CHUNKED):
        request.applymarker(pytest.mark.xfail(reason=OLD_CLIENTS_GET_ENDS, strict=True))
    if (proxy.wsgi, version) == (True, b"1.0") and said.startswith(CHUNKED + b"3"):
        request.applymarker(pytest.mark.xfail(reason=WSGI_ENDS_TOO, strict=True))
    answer = proxy.ask(get(scripted(proxy, saying(said, end=True)), version=version))
    assert not answer.whole or answer.status in (502, 503)


def left(client: Client, how: str) -> None:
    if how == "reset":
        client.reset()
    client.leave()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("begun", [True, False], ids=["in the body", "before the head"])
def test_a_client_that_leaves_ends_the_upstream_request(proxy: RunningProxy, how: str, begun: bool) -> None:
    if proxy.wsgi:
        pytest.skip(NO_DISCONNECT_REPORTED)
    asked, gone = threading.Event(), threading.Event()

    def script(line: Line, head: Head) -> None:
        if begun:
            line.send(CHUNKED + b"3\r\nabc\r\n")
        asked.set()
        line.more()
        gone.set()

    client = Client(proxy.port)
    client.send(get(scripted(proxy, script)))
    assert asked.wait(20)
    if begun:
        assert client.readline()
    left(client, how)
    assert gone.wait(20)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_a_stream_ends_it_upstream(proxy: RunningProxy, how: str) -> None:
    gone = threading.Event()

    def script(line: Line, head: Head) -> None:
        line.send(CHUNKED)
        line.sock.settimeout(0.02)
        while not gone.is_set():
            line.send(b"3\r\nabc\r\n")
            try:
                ended = not line.sock.recv(1)
            except TimeoutError:
                continue
            except ConnectionError:
                ended = True
            if ended:
                gone.set()

    client = Client(proxy.port)
    client.send(get(scripted(proxy, script)))
    assert client.readline()
    left(client, how)
    assert gone.wait(20)


PADDING = b"x" * 99_995


@pytest.mark.parametrize(
    ("framing", "part"),
    [(b"Transfer-Encoding: chunked", b"186a0\r\nhello%b\r\n"), (b"Content-Length: 200000", b"hello%b")],
    ids=["chunks", "length"],
)
def test_an_upload_that_breaks_off_is_not_completed(proxy: RunningProxy, framing: bytes, part: bytes) -> None:
    if proxy.kind == "waitress":
        pytest.skip(BODY_IN_FULL_CHUNKS)
    seen, ends = threading.Event(), threading.Event()
    outcome: list[bytes] = []

    def script(line: Line, head: Head) -> None:
        try:
            line.until(b"hello")
            seen.set()
            outcome.append(line.rest())
        finally:
            ends.set()

    client = Client(proxy.port)
    client.send(upload(scripted(proxy, script), framing) + part % PADDING)
    assert seen.wait(20)
    client.leave()
    assert ends.wait(20)
    assert b"0\r\n\r\n" not in outcome[0]


def test_many_at_once_are_not_mixed_up(proxy: RunningProxy) -> None:
    wrong: list[str] = []

    def talk() -> None:
        with proxy.client() as client:
            for number in range(20):
                token, gray = new_token(), number % 3 == 0
                client.send(get(token, b"gray: true" if gray else b"x: y"))
                echo = client.answer().echo
                if token.decode() not in echo["line"] or echo["who"] != ("gray" if gray else "stable"):
                    wrong.append(echo["line"])

    threads = [threading.Thread(target=talk) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("part", ["head", "body"])
def test_a_client_that_stalls_is_let_go(proxy: RunningProxy, part: str) -> None:
    if not proxy.ours:
        pytest.skip("the other servers have no such deadline")

    def script(line: Line, head: Head) -> None:
        line.sock.settimeout(90)
        line.rest()

    token = scripted(proxy, script)
    stalled = get(token)[:-2] if part == "head" else upload(token, b"Content-Length: 5") + b"he"
    begun = time.monotonic()
    with proxy.client() as client:
        client.sock.settimeout(90)
        client.send(stalled)
        assert client.answer().status == 408
        assert client.closed()
    assert time.monotonic() - begun > 9
