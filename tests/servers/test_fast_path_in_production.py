"""The fast path does all that the long way does where production runs: figures, records, releases, evidence, changes.

Each case runs on both ways, over real sockets, and everything that can be seen of it is compared.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from servers import free_port, mapping, run
from standalone import HANDLERS, RULES, Noting, Records, Wire, listening, wire_to
from upstream import OK, Peer, serving

from canary_mw.observability.figures.values import Figures

BODY = b"content-length: 2\r\n\r\nok"
PLAIN = OK + b"content-type: text/html\r\nserver: up\r\n" + BODY
COOKIES = OK + b"Set-Cookie: a=b\r\nset-cookie: c=d\r\n" + BODY
CHUNKED = OK + b"Transfer-Encoding: chunked\r\nvary: a\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\n\r\n"
GRAY = mapping("gray", "/shop/", "shop-gray", weight=0)
ADDED = {
    "add_request_headers": "{x-given: one, accept: {value: two, append: false}}",
    "remove_request_headers": "[cookie]",
    "add_response_headers": "{x-given: three, server: {value: ours, append: false}}",
    "remove_response_headers": "[content-type]",
}
ANALYSIS = "analysis: {metrics: [{name: error_rate}]}\n"
BROWSER = (b"user-agent: Mozilla", b"accept: */*", b"cookie: id=anna; a=b", b"x-forwarded-for: 198.51.100.7")


def release(fields: str) -> str:
    return f"---\napiVersion: canary-mw/v1\nkind: GrayRelease\nname: r\ngray: {{gray: 50}}\n{fields}"


class Case(NamedTuple):
    """Rules, and what is asked and answered.

    Attributes:
        gray: what gray answers; b"reset" and b"wait" for what they say.
        long: requests that take the long way on the fast path, too, besides the first one, which has to connect.
    """

    rules: str
    lines: tuple[tuple[bytes, ...], ...] = (BROWSER,) * 3
    answer: bytes = PLAIN
    gray: bytes | None = None
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    long: int = 0


NET = (
    RULES
    + mapping("gray", "/shop/", "shop-gray", weight=0, host_rewrite="gray.example")
    + release("sticky: [{header: x-user}]\nfallback: {gray_timeout_ms: 50, budget: {percent: 100, min: 1000}}\n")
)
KEYS = tuple((*BROWSER, b"x-user: user-%d" % number) for number in range(12))
CASES = {
    "plain": Case(RULES),
    "a split by weights": Case(RULES + mapping("gray", "/shop/", "shop-gray", weight=50)),
    "a failure": Case(RULES, answer=PLAIN.replace(b"200 OK", b"503 Busy")),
    "not found": Case(RULES, answer=PLAIN.replace(b"200 OK", b"404 Not Found")),
    "constant headers": Case(mapping("stable", "/shop/", "shop", **ADDED)),
    "another host": Case(mapping("stable", "/shop/", "shop", host_rewrite="else.example", rewrite="/a/b/")),
    "several cookies": Case(RULES, answer=COOKIES),
    "chunked": Case(RULES, answer=CHUNKED),
    "a trusted peer": Case(RULES, options={"forwarded_allow_ips": ("127.0.0.1",)}),
    "a trusted proxy far in front": Case(
        RULES + GRAY + release("sticky: [client_ip]\n"), options={"forwarded_allow_ips": ("*",)}
    ),
    "a key in a header": Case(RULES + GRAY + release("sticky: [{header: x-user}]\n"), KEYS),
    "a key in a cookie": Case(RULES + GRAY + release("sticky: [{cookie: id}]\n")),
    "a choice": Case(RULES + GRAY + release("missing: roll\nchoice: {header: x-user}\n"), KEYS[:3]),
    "an audience": Case(
        RULES + GRAY + release("sticky: [{header: x-user}]\naudience: {header: {accept: ['*/*']}}\n"), KEYS
    ),
    "a cookie of ours": Case(
        RULES + GRAY + release("missing: cookie\n"), ((), (b"cookie: cmw_id=AAAAAAAAAAAAAAAAAAAAAA.0",))
    ),
    "a session that stays": Case(RULES + GRAY + release("sticky: [{header: x-user}]\non_zero: drain\n"), KEYS),
    "a safety net": Case(RULES + GRAY + release("sticky: [{header: x-user}]\nfallback: {}\n"), KEYS),
    "gray that fails": Case(NET, KEYS, gray=PLAIN.replace(b"200 OK", b"503 Busy")),
    "gray that fails at length": Case(NET, KEYS, gray=PLAIN.replace(b"200 OK", b"503 Busy").replace(b": 2", b": 9")),
    "gray that resets": Case(NET, KEYS, gray=b"reset"),
    "gray that is late": Case(NET, KEYS[:6], gray=b"wait"),
    "gray that is no HTTP": Case(NET, KEYS, gray=b"garbage\r\n\r\n"),
    "evidence": Case(RULES + GRAY + release("sticky: [{header: x-user}]\nfallback: {}\n" + ANALYSIS), KEYS),
    "a tag": Case(
        RULES + GRAY + release("sticky: [{header: x-user}]\npropagate: {format: tag, header: x-tag}\n"), KEYS
    ),
    "baggage": Case(
        RULES + GRAY + release("sticky: [{header: x-user}]\npropagate: {baggage: true, hosts: [shop-gray]}\n"), KEYS
    ),
    "changes below a release": Case(
        mapping("stable", "/shop/", "shop", **ADDED)
        + mapping("gray", "/shop/", "shop-gray", weight=0, remove_request_headers="[x-canary-lane]")
        + release("sticky: [{header: x-user}]\n"),
        KEYS,
    ),
    "a lane": Case(
        RULES + GRAY + release("sticky: [{header: x-user}]\n"), ((*BROWSER, b"x-canary-lane: r=gray"),), long=1
    ),
}


class Seen(NamedTuple):
    """What can be seen of a run."""

    client: list[bytes]
    upstream: list[bytes]
    records: list[dict[str, Any]]
    figures: list[Any]


def seen_by(path: Path, case: Case, handler: str) -> tuple[Seen, Noting]:
    """Run a case."""
    path.write_text(case.rules)
    heads: list[bytes] = []
    records = Records()

    async def script(peer: Peer) -> None:
        while True:
            head = await peer.reader.readuntil(b"\r\n\r\n")
            heads.append(head)
            if case.gray is None or b"host: gray.example" not in head:
                await peer.send(case.answer)
            elif case.gray == b"reset":
                peer.reset()
                return
            elif case.gray == b"wait":
                await peer.gone()
                return
            else:
                await peer.send(case.gray)

    async def main() -> tuple[Seen, Noting]:
        async with serving(script) as upstream:
            options = {"hop_id": "here", "admin_port": free_port(), **case.options}
            app = Noting(path, upstream.origin.port, handler=handler, records=records, **options)
            # Both ways draw the same.
            middleware = app._middleware
            middleware.roll = iter([25.0, 75.0] * 50).__next__
            middleware.release.person = middleware.person = middleware.person._replace(new_id=lambda: b"B" * 22)
            async with listening(app) as (port, _), wire_to(port) as client:
                written = [await asked(client, lines) for lines in ((), *case.lines)]
            assert app._metrics is not None
            found = app._metrics.read(1e9)
            return Seen(written, [without_ids(head) for head in heads], records.dicts(), counted(found)), app

    return run(main())


async def asked(client: Wire, lines: tuple[bytes, ...]) -> bytes:
    """All bytes of the answer to a request."""
    await client.ask(b"\r\n".join((b"GET /shop/a?b=c HTTP/1.1", b"host: shop.example", *lines, b"", b"")))
    head = await client.reader.readuntil(b"\r\n\r\n")
    return without_ids(head) + await client.reader.readuntil(b"0\r\n\r\n" if b"chunked" in head else b"ok")


def without_ids(head: bytes) -> bytes:
    """A head without what is drawn for each request."""
    return re.sub(rb"(x-request-id: |cmw_id=)[^\r;]*", rb"\1ID", head)


def counted(figures: Figures) -> list[Any]:
    """Figures without times."""
    rows = {
        key: (row.classes, row.errors, row.bytes_in, row.bytes_out, row.retries, row.fallbacks, row.failures)
        for key, row in figures.rows.items()
    }
    arms = {name: list(evidence.epochs.values()) for name, evidence in figures.evidence.items()}
    return [rows, figures.counters, arms]


@pytest.mark.parametrize("name", CASES)
def test_both_ways_are_seen_to_do_the_same(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    (fast, app), (long, other) = (seen_by(tmp_path / "rules.yaml", case, handler) for handler in HANDLERS)
    assert fast.client == long.client
    assert fast.upstream == long.upstream
    assert [_without_upstream(each) for each in fast.records] == [_without_upstream(each) for each in long.records]
    assert fast.figures == long.figures
    assert app.fast_path is not None
    assert app.fast_path.taken == len(case.lines) - case.long
    assert other.fast_path is None


def _without_upstream(record: dict[str, Any]) -> dict[str, Any]:
    """A record without the port of an upstream, which each run has of its own."""
    return {key: value for key, value in record.items() if key != "upstream"}
