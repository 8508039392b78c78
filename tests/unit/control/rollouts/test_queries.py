"""Queries to a server on a real socket: what its answers mean, and that no answer ever allows or forbids anything."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hook_server import HookServer, hook_server
from planned_releases import ANALYSIS, planned

from canary_mw.control.rollouts.queries import queries as asking
from canary_mw.control.rollouts.queries.queries import Queries
from canary_mw.forking import running_threads
from canary_mw.rollout.queries import QueryStanding, Said, failure_of, in_words, unanswered
from canary_mw.rollout.state import ReleaseState
from canary_mw.rules.queries.query import Query
from canary_mw.rules.release import GrayRelease

NEAR = ("127.0.0.1",)
STATE = ReleaseState(name="shop", phase="Progressing", step=0, visit=1, weights={"gray": 5.0})
TEXT = 'max(load{release="{{release}}",v="{{revision}}",n="{{namespace}}"}) + {{step}} + {{attempt}} + {{weight}}'


class Clock:
    """Time that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[HookServer]:
    with hook_server() as found:
        yield found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(asking, "monotonic", found)
    return found


def query(server: HookServer, **changes: Any) -> Query:
    return Query("load", server.url("/base"), TEXT, success="result[0] < 0.8")._replace(**changes)


def release(*queries: Query, **changes: Any) -> GrayRelease:
    return planned(analysis=ANALYSIS._replace(queries=queries), **changes)


def vector(*values: str) -> bytes:
    series = [{"metric": {"i": str(place)}, "value": [1.5, value]} for place, value in enumerate(values)]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": series}}).encode()


def other(kind: str, result: Any) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()


def settled(queries: Queries, document: GrayRelease, state: ReleaseState = STATE) -> Sequence[QueryStanding]:
    """How queries stand once all that were asked have answered."""
    queries.ask(document, state)
    for thread in running_threads():
        if thread.name == "canary-mw-query":
            assert thread.join(20)
    return queries.ask(document, state)


def test_a_query_is_asked_with_what_the_release_is(server: HookServer) -> None:
    server.body = vector("0.25")
    document = release(query(server), revision='v"2', namespace="prod")
    (standing,) = settled(Queries(NEAR), document)
    assert (standing.last, standing.failures) == (("successful", "0.25"), 0)
    posted = server.next()
    assert (posted.path, posted.headers["content-type"]) == ("/base/api/v1/query", "application/x-www-form-urlencoded")
    assert posted.body == {"query": ['max(load{release="shop",v="v\\"2",n="prod"}) + 1 + 1 + 5']}


@pytest.mark.parametrize(
    ("body", "said", "text"),
    [
        (vector("0.79"), "successful", "0.79"),
        (vector("0.8", "0.1"), "failed", "0.8, 0.1"),
        (vector("1", "2", "3", "4", "5"), "failed", "1, 2, 3 and 2 more"),
        (vector("+Inf"), "failed", "inf"),
        (vector("-Inf"), "successful", "-inf"),
        (other("scalar", [1.5, "0.5"]), "successful", "0.5"),
        (vector(), "unanswered", "there is no data"),
        (vector("NaN"), "unanswered", "a value is no number"),
        (vector("0.1", "NaN"), "unanswered", "a value is no number"),
        (other("string", [1.5, "0.5"]), "unanswered", "its result is no number"),
        (other("matrix", [{"metric": {}, "values": [[1.5, "0.5"]]}]), "unanswered", "its result is no number"),
        (vector("a"), "unanswered", "its answer is not that of Prometheus"),
        (other("vector", [{"metric": {}, "value": [1.5, 0.5]}]), "unanswered", "its answer is not"),
        (other("vector", [{"metric": {}, "value": [1.5]}]), "unanswered", "its answer is not"),
        (other("vector", {"a": 1}), "unanswered", "its answer is not"),
        (other("vector", None), "unanswered", "its answer is not"),
        (b'{"status": "error", "errorType": "bad_data", "error": "secret"}', "unanswered", "it answers with an error"),
        (b"", "unanswered", "its answer is not"),
        (b"[]", "unanswered", "its answer is not"),
        (b"<html>", "unanswered", "its answer is not"),
        (b"\xff\xfe", "unanswered", "its answer is not"),
        (b"[" * 60_000, "unanswered", "its answer is not"),
        (vector("0.1", *["0"] * 3000), "unanswered", "127.0.0.1 answers with more than 65536 bytes"),
    ],
)
def test_what_an_answer_means(server: HookServer, body: bytes, said: Said, text: str) -> None:
    server.body = body
    (standing,) = settled(Queries(NEAR), release(query(server)))
    assert standing.last is not None
    assert (standing.last.said, standing.last.text[: len(text)]) == (said, text)
    assert standing.failures == (said == "failed")
    assert bool(failure_of([standing], "rollback")) == (said == "failed")
    assert bool(unanswered([standing.query], [standing])) == (said != "successful")


@pytest.mark.parametrize("status", [204, 302, 307, 400, 404, 422, 500, 503, None])
def test_an_answer_that_is_no_200_is_none(server: HookServer, status: int | None) -> None:
    server.body = b"" if status == 204 else vector("99")
    server.headers["location"] = server.url("/elsewhere")
    server.status["/base/api/v1/query"] = status
    (standing,) = settled(Queries(NEAR), release(query(server)))
    assert standing.last is not None
    assert (standing.last.said, standing.failures) == ("unanswered", 0)
    assert server.next().path == "/base/api/v1/query"
    assert server.posted.empty(), "no redirect is followed"


def test_a_server_that_is_slow_is_given_up_and_nobody_waits(server: HookServer) -> None:
    server.go.clear()
    queries, document = Queries(NEAR), release(query(server, timeout=0.05))
    (standing,) = queries.ask(document, STATE)
    assert standing.last is None
    (standing,) = settled(queries, document)
    assert standing.last == ("unanswered", "127.0.0.1 does not answer in time")
    server.go.set()


def test_an_address_of_this_machine_is_asked_only_where_it_is_allowed(server: HookServer) -> None:
    (standing,) = settled(Queries(), release(query(server)))
    assert standing.last is not None
    assert "--hook-hosts 127.0.0.1 allows it" in standing.last.text
    assert server.posted.empty()


def test_failures_are_counted_in_a_step_and_no_answer_forgives_none(server: HookServer, clock: Clock) -> None:
    queries, document = Queries(NEAR), release(query(server, failure_limit=2, interval=60.0))
    found = []
    for value in ("0.9", "0.1", "NaN", "0.9", "0.95"):
        server.body = vector(value)
        (standing,) = settled(queries, document)
        found.append((standing.failures, standing.failed))
        clock.now += 59.9
        # It is not its turn yet.
        assert settled(queries, document) == (standing,)
        clock.now += 0.2
    assert found == [(1, False), (1, False), (1, False), (2, False), (3, True)]
    assert in_words(standing) == "fails: 0.95; failed 3 times in this step, may 2 times"
    # Another step, or another attempt, begins with none.
    for state in (replace(STATE, step=1, visit=2), replace(STATE, attempt=2)):
        (standing,) = settled(queries, document, state)
        assert standing.failures == 1
    assert settled(queries, document, replace(STATE, phase="RolledBack")) == ()


def test_conditions_are_those_of_argo_rollouts(server: HookServer, clock: Clock) -> None:
    queries = Queries(NEAR)
    for success, failure, expected in [
        ("result[0] < 1", "", ["successful", "failed", "failed"]),
        ("", "result[0] > 2", ["successful", "successful", "failed"]),
        ("result[0] < 1", "result[0] > 2", ["successful", "inconclusive", "failed"]),
        ("true", "true", ["failed", "failed", "failed"]),
    ]:
        document = release(query(server, success=success, failure=failure))
        for value, said in zip(("0.5", "1.5", "2.5"), expected, strict=True):
            server.body = vector(value)
            (standing,) = settled(queries, document)
            assert standing.last is not None
            assert standing.last.said == said
            clock.now += 61


def test_an_answer_that_is_too_old_says_nothing(server: HookServer, clock: Clock) -> None:
    server.body = vector("0.1")
    queries, document = Queries(NEAR), release(query(server, interval=10.0, timeout=5.0))
    settled(queries, document)
    server.go.clear()
    clock.now += 26
    (standing,) = queries.ask(document, STATE)
    assert standing.last == ("unanswered", "the last answer is too old")
    server.go.set()
    (standing,) = settled(queries, document)
    assert standing.last == ("successful", "0.1")


def test_an_answer_about_an_earlier_step_counts_for_nothing(server: HookServer) -> None:
    server.body = vector("9")
    server.go.clear()
    queries, document = Queries(NEAR), release(query(server))
    queries.ask(document, STATE)
    server.next()
    later = replace(STATE, step=1, visit=2)
    queries.ask(document, later)
    server.next()
    server.go.set()
    (standing,) = settled(queries, document, later)
    assert standing.failures == 1


def test_a_release_that_is_not_under_way_asks_nothing(server: HookServer) -> None:
    queries, document = Queries(NEAR), release(query(server))
    pending = replace(STATE, phase="Pending", weights={"gray": 0.0})
    assert settled(queries, document, pending) == ()
    assert settled(queries, replace(document, enabled=False)) == ()
    assert settled(queries, planned()) == ()
    assert server.posted.empty()
