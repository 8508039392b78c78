"""What `explain` says is what `serve` does: random rules and requests, a real process, real sockets.

One process serves all examples; its rules file is swapped, and a Mapping that only this example has shows when the new
rules are in force. Every Mapping leads to a service of its own, whose name stands in `via`.
"""

import asyncio
import json
import os
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import client_of, fetch_admin, free_port, process
from upstream import Peer, Seen, serving

from canary_mw.inspection.explanation_json import explain_batch

Json = dict[str, Any]
Pairs = list[tuple[str, str]]
# Headers of a message that explain does not report: those of the connection and those that every request gets.
UNTOLD = frozenset(
    "connection keep-alive te transfer-encoding content-length host via x-request-id x-real-ip forwarded date".split()
)
ECHO = [("x-echo", "one"), ("x-echo", "two"), ("x-gone", "here"), ("access-control-allow-origin", "http://theirs")]

HOSTS = ["a.example", "b.example", "A.example:8080", "other"]
TARGETS = [
    *("/", "/svc", "/svc/", "/svc/a", "/svc/a/b", "/svcx", "/SVC/a", "/svc//b", "//svc/a", "/other", "/svc/ab"),
    *("/svc/%2e%2e/svc/a", "/svc/./a", "/svc/%61", "/svc/%2Fa", "/svc\\a", "/svc/..", "/svc../a", "/svc/%00", "/svc/%"),
]
# A "?" with nothing behind it is not among them: ASGI cannot tell it from none.
QUERIES = ["", "", "?q=1", "?q=2&q=1", "?q", "?p=1&q=%31"]
HEADERS = [
    *(("x-a", "1"), ("x-a", "2"), ("X-A", "12"), ("x-b", ""), ("x-b", "b c"), ("x_u", "1")),
    *(("origin", "http://a"), ("access-control-request-method", "PUT"), ("x-forwarded-for", "10.0.0.1")),
]


def optional(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """Some attributes."""
    return st.fixed_dictionaries({}, optional=values)


names = st.sampled_from(["x-a", "x-b", "x-echo", "x-gone", "x-new"])
values = st.sampled_from(["v", "", "100%%", "%REQ(x-a)%", "%REQ(x-none?:path)%", "%REQ(x-a):1%-", "%PROTOCOL%"])
# Those of answers stand in `explain` as they are written, so that only plain ones can be compared.
added = st.dictionaries(names, st.fixed_dictionaries({"value": values, "append": st.booleans()}), max_size=2)
plain = st.sampled_from(["v", "", "w"])
answered = st.dictionaries(names, st.fixed_dictionaries({"value": plain, "append": st.booleans()}), max_size=2)
conditions = st.fixed_dictionaries({}, optional={"x-a": st.sampled_from(["1", "2", True, False]), "x-b": st.just(True)})
rules = st.builds(
    lambda matching, more: {**matching, **more},
    st.one_of(
        st.fixed_dictionaries({"prefix": st.sampled_from(["/", "/svc", "/svc/", "/svc/a", "/SVC/"])}),
        st.fixed_dictionaries({"prefix": st.sampled_from(["/svc/a", "/svc"]), "prefix_exact": st.just(True)}),
        st.fixed_dictionaries({"prefix": st.sampled_from(["/svc/[ab].*", ".*"]), "prefix_regex": st.just(True)}),
    ),
    optional(
        host=st.sampled_from(["a.example", "*.example", "b*", "a.example:8080", "*"]),
        headers=conditions,
        regex_headers=st.just({"x-a": "[12]+"}),
        query_parameters=st.sampled_from([{"q": "1"}, {"q": True}]),
        method=st.sampled_from(["GET", "POST"]),
        case_sensitive=st.booleans(),
        precedence=st.sampled_from([0, 1, 2]),
        weight=st.sampled_from([0, 20, 50, 100, 100, 120]),
        rewrite=st.sampled_from(["", "/v2/", "/v2"]),
        regex_rewrite=st.sampled_from([{"pattern": "/svc/(.)", "substitution": "/\\1-"}, {"pattern": "z"}]),
        host_rewrite=st.sampled_from(["inner", "inner.example:81"]),
        auto_host_rewrite=st.booleans(),
        add_request_headers=added,
        add_response_headers=answered,
        remove_request_headers=st.lists(names, max_size=2),
        remove_response_headers=st.lists(names, max_size=2),
        add_linkerd_headers=st.booleans(),
        cors=st.sampled_from([{"origins": "http://a", "methods": "GET", "credentials": True}, {"origins": "*"}]),
        timeout_ms=st.sampled_from([0, 5000]),
        retry_policy=st.just({"retry_on": "5xx"}),
        host_redirect=st.sampled_from([False, False, True]),
        path_redirect=st.sampled_from(["/moved", "/moved?x=y"]),
        prefix_redirect=st.just("/new/"),
        redirect_response_code=st.sampled_from([302, 308]),
    ),
)
modules = optional(
    merge_slashes=st.booleans(),
    reject_requests_with_escaped_slashes=st.booleans(),
    headers_with_underscores_action=st.sampled_from(["DROP_HEADER", "REJECT_REQUEST"]),
    server_name=st.just("edge"),
    ip_deny=st.sampled_from([[{"peer": "10.0.0.0/8"}], [{"peer": "127.0.0.1"}]]),
    cors=st.just({"origins": ["http://a"]}),
    defaults=st.fixed_dictionaries({"add_request_headers": added}),
)


class Request(NamedTuple):
    """A request as the client sends it."""

    method: str
    target: str
    host: str
    headers: Pairs

    def as_json(self) -> Json:
        """What `explain --batch` takes."""
        return {"method": self.method, "path": self.target, "host": self.host, "headers": self.headers}


requests = st.builds(
    Request,
    st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "PURGE"]),
    st.builds(str.__add__, st.sampled_from(TARGETS), st.sampled_from(QUERIES)),
    st.sampled_from(HOSTS),
    st.lists(st.sampled_from(HEADERS), max_size=3),
)


class Outcome(NamedTuple):
    """What became of a request, comparable with what was said.

    Attributes:
        routed: status and location where the proxy answered; service, method, target and Host where it forwarded.
        sent: headers of the request to the upstream.
        answer: headers of the answer.
    """

    routed: tuple[object, ...]
    sent: dict[str, list[str]]
    answer: dict[str, list[str]]


def by_name(pairs: Pairs) -> dict[str, list[str]]:
    """Headers that explain reports."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        if name.lower() not in UNTOLD and not name.lower().startswith("x-forwarded-"):
            found.setdefault(name.lower(), []).append(value.strip())
    return found


def said(candidate: Json, request: Request) -> Outcome:
    """The outcome that a candidate promises."""
    if candidate["upstream"] is None:
        redirect = candidate["redirect"] or {}
        headers = {"location": [redirect["location"]]} if redirect else {}
        headers |= (candidate["response"] or {}).get("headers_added", {})
        return Outcome((candidate["status"],), {}, headers)
    upstream, response = candidate["upstream"], candidate["response"]
    sent = {name: v for name, v in by_name(request.headers).items() if name not in upstream["headers_removed"]}
    sent |= upstream["headers_changed"] | upstream["headers_added"]
    answer = {name: v for name, v in by_name(ECHO).items() if name not in response["headers_removed"]}
    answer |= response["headers_changed"]
    for name, more in response["headers_added"].items():
        answer[name] = [*answer.get(name, []), *more]
    routed = (candidate["service"], upstream["method"], upstream["path"], upstream["host"])
    return Outcome(routed, sent, answer)


def seen_by(upstream: Seen, answer: dict[str, list[str]]) -> Outcome:
    """The outcome that an upstream saw."""
    pairs = [tuple(line.decode("latin-1").split(":", 1)) for line in upstream.headers]
    headers: Pairs = [(name, value.strip()) for name, value in pairs]
    first = {name.lower(): value for name, value in reversed(headers)}
    service = re.search(r"\(([^()]*)\)$", first["via"])
    method, target, _ = upstream.line.decode("latin-1").split(" ")
    routed = (service and service[1], method, target, first["host"])
    return Outcome(routed, by_name(headers), answer)


class Bench:
    """A serving process with one rules file, and one upstream that stands for all."""

    def __init__(self, runner: asyncio.Runner, rules_file: Path, port: int, admin: int, seen: list[Seen]) -> None:
        self._runner = runner
        self._file = rules_file
        self._port = port
        self._admin = admin
        self._seen = seen
        self._numbers = count(1)

    def swap(self, mappings: list[Json], module: Json) -> str:
        """Put rules in force; returns their text.

        What was in force before is removed first: a group whose weights are too high would keep the shares that it had.
        """
        number = next(self._numbers)
        self._put([_marker(f"empty-{number}")], f"empty-{number}")
        # Names of this example alone: a Mapping in error would keep the last good version of its name.
        documents = [_mapping(f"m{number}-{place}", more) for place, more in enumerate(mappings)]
        documents.append(_marker(f"marker-{number}"))
        documents.append({**_HEAD, "kind": "Module", "name": "ambassador", "config": module})
        return self._put(documents, f"marker-{number}")

    def _put(self, documents: list[Json], marker: str) -> str:
        text = "".join(f"---\n{json.dumps(document)}\n" for document in documents)
        following = self._file.with_suffix(".next")
        following.write_text(text, "utf-8")
        os.replace(following, self._file)
        self._runner.run(self._until(f'"{marker}"'.encode()))
        return text

    async def _until(self, marker: bytes) -> None:
        async with asyncio.timeout(30):
            while marker not in (await fetch_admin(self._admin, "/rules")).body:
                pass

    def ask(self, request: Request) -> Outcome:
        """Send a request, and return its outcome."""
        self._seen.clear()
        status, headers = self._runner.run(self._talk(request))
        assert len(self._seen) <= 1
        answer = by_name(headers)
        if self._seen:
            return seen_by(self._seen[0], answer)
        return Outcome((status,), {}, {name: v for name, v in answer.items() if _is_told(name)})

    async def _talk(self, request: Request) -> tuple[int, Pairs]:
        async with asyncio.timeout(30), client_of(self._port) as client:
            # Not by the client's own means: they know no other Host, and no target that is not a path.
            parser = h11.Connection(h11.CLIENT)
            lines = [f"{request.method} {request.target} HTTP/1.1", f"host: {request.host}"]
            lines += [f"{name}: {value}" for name, value in request.headers]
            await client.put("\r\n".join([*lines, "", ""]).encode("latin-1"))
            parser.send(h11.Request(method=request.method, target="/", headers=[("host", "x")]))
            parser.send(h11.EndOfMessage())
            client._parser = parser
            answer = await client.answer()
        assert answer.whole
        return answer.status, [(name.decode(), value.decode("latin-1")) for name, value in answer.headers]


_HEAD = {"apiVersion": "getambassador.io/v2"}


def _mapping(name: str, attributes: Json) -> Json:
    return {**_HEAD, "kind": "Mapping", "name": name, "service": f"{name}.example", **attributes}


def _marker(name: str) -> Json:
    """A Mapping that no request of these tests matches; the admin port shows when it is in force."""
    return _mapping(name, {"prefix": f"/{name}/", "host": "marker"})


def _is_told(name: str) -> bool:
    """Whether explain reports that header of a reply."""
    return name == "location" or name.startswith("access-control-")


@contextmanager
def running(folder: Path) -> Iterator[Bench]:
    """A bench; its upstream lives in the loop of the runner, so it answers while a request is under way."""
    rules_file, port, admin = folder / "rules.yaml", free_port(), free_port()
    rules_file.write_text(json.dumps(_mapping("first", {"prefix": "/"})), "utf-8")
    seen: list[Seen] = []
    lines = [f"{name}: {value}".encode() for name, value in ECHO]

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            seen.append(request)
            if request.line.startswith(b"HEAD "):
                await peer.send(b"\r\n".join([b"HTTP/1.1 200 OK", b"content-length: 2", *lines, b"", b""]))
            else:
                await peer.answer(b"ok", *lines)

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        upstream = runner.run(stack.enter_async_context(serving(script)))
        url = f"*=http://127.0.0.1:{upstream.origin.port}"
        arguments = ("--rules", str(rules_file), "--port", str(port), "--admin-port", str(admin), "--upstream", url)
        try:
            with process("serve", *arguments, log=folder / "log", wait_for=[port, admin]) as proxy:
                yield Bench(runner, rules_file, port, admin, seen)
            assert "Traceback" not in proxy.output
        finally:
            runner.run(stack.aclose())


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with running(tmp_path_factory.mktemp("serve")) as found:
        yield found


def agrees(bench: Bench, mappings: list[Json], module: Json, asked: list[Request]) -> None:
    """Compare what is said with what is done, for each of the requests."""
    text = bench.swap(mappings, module)
    message = {"rules": text, "mode": "standalone", "local": None, "requests": [each.as_json() for each in asked]}
    results = json.loads(json.dumps(explain_batch(message, {})))["results"]
    for request, result in zip(asked, results, strict=True):
        promised = [said(candidate, request) for candidate in result["candidates"]]
        assert bench.ask(request) in promised, request


given_rules = given(
    mappings=st.lists(rules, min_size=1, max_size=5),
    module=st.one_of(st.just({}), modules),
    asked=st.lists(requests, min_size=1, max_size=6),
)


@given_rules
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.timeout(300)
def test_what_explain_says_is_what_serve_does(
    bench: Bench, mappings: list[Json], module: Json, asked: list[Request]
) -> None:
    agrees(bench, mappings, module, asked)


@given_rules
@settings(max_examples=800, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_explain_says_is_what_serve_does_many_times(
    bench: Bench, mappings: list[Json], module: Json, asked: list[Request]
) -> None:
    agrees(bench, mappings, module, asked)


@pytest.mark.parametrize("weight", [0, 100])
def test_a_weight_of_nothing_or_all_leaves_one_outcome(bench: Bench, weight: int) -> None:
    mappings: list[Json] = [{"prefix": "/svc/"}, {"prefix": "/svc/", "weight": weight}]
    request = Request("GET", "/svc/a", "a.example", [])
    agrees(bench, mappings, {}, [request])
    outcomes = {bench.ask(request).routed[0] for _ in range(20)}
    assert len(outcomes) == 1
    (service,) = outcomes
    assert str(service).endswith("-1.example" if weight else "-0.example")


def test_both_outcomes_of_a_half_come_to_pass(bench: Bench) -> None:
    mappings: list[Json] = [{"prefix": "/svc/"}, {"prefix": "/svc/", "weight": 50}]
    request = Request("GET", "/svc/a", "a.example", [])
    agrees(bench, mappings, {}, [request])
    # Forty halves all alike: once in 10^12.
    assert len({bench.ask(request).routed[0] for _ in range(41)}) == 2
