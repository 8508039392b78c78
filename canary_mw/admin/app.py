"""The admin app: health, the rules in force, metrics, the JSON API and its pages.

It only reads but for commands, shows no secrets, and no Mapping leads to it.
"""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from collections.abc import Mapping as Dict
from functools import partial
from typing import Any
from weakref import ref

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from canary_mw.admin.api import ANSWERS, PAGES, Answering
from canary_mw.admin.commands.answer import Commands, FindRollouts, command_answer, tag_of
from canary_mw.admin.commands.peers import COMMAND as ROLLED_BACK
from canary_mw.admin.commands.peers import evidence_response, rolled_back_answer
from canary_mw.admin.commands.request import path_of
from canary_mw.admin.commands.tokens import TokenFile
from canary_mw.admin.desk import Desk
from canary_mw.admin.errors import Refused, error_response
from canary_mw.admin.events import events
from canary_mw.admin.guard import Guard
from canary_mw.admin.openapi import openapi
from canary_mw.admin.pages.routes import page_routes
from canary_mw.admin.releases.looking import look
from canary_mw.admin.releases.rollout import rollout_in_force, stamp
from canary_mw.admin.rules import describe_rules
from canary_mw.admin.streams import Streams
from canary_mw.admin.subject import MetricsRenderer, Subject
from canary_mw.admin.text_changes import TextChanges
from canary_mw.control.rollouts_by_store import rollouts_known
from canary_mw.control.store import RuleStore
from canary_mw.observability.prometheus import Metrics

# Bytes that are written at once.
_PIECE = 65536

Handler = Callable[[Request], Awaitable[Response]]


def create_admin(
    store: RuleStore,
    metrics: MetricsRenderer,
    draining: Callable[[], bool] = lambda: False,
    *,
    host_names: Collection[str] | None = None,
    token_file: str | os.PathLike[str] | None = None,
    rollouts: FindRollouts | None = None,
    **shown: Any,
) -> Starlette:
    """Create the admin app of a rule store.

    Args:
        draining: returns whether the process shuts down and takes no new requests.
        host_names: names by which the app may be asked, besides addresses and localhost; None for any. For a port of
            its own they are a protection against DNS rebinding.
        token_file: a file with lines `SCOPE TOKEN`, of those who may give commands to releases; nobody without it.
        rollouts: returns what drives the releases, None where nothing does; by default that of the store.
        shown: see `Subject`.
    """
    if isinstance(metrics, Metrics):
        shown.setdefault("read_figures", metrics.read)
    changes = TextChanges(store)
    shown.setdefault("differences", changes.differences)
    shown.setdefault("sources", store.source_status)
    commands = Commands(TokenFile(token_file), rollouts or partial(rollouts_known, store))
    shown.setdefault("rollout", partial(rollout_in_force, store, commands.rollouts))
    shown.setdefault("stamp", partial(stamp, commands.rollouts))
    subject = Subject(store=store, metrics=metrics, draining=draining, **shown)
    store.observers = (*store.observers, changes)
    store.ticks.append(partial(look, ref(subject)))
    streams = Streams()
    app = Starlette(
        routes=_routes(subject, commands, streams),
        middleware=[Middleware(Guard, host_names=host_names)],
        exception_handlers={HTTPException: _http_error, Refused: _refused},
    )
    app.router.redirect_slashes = False
    # Whoever serves the app calls it before the server waits for its clients: a stream has no other end.
    app.state.streams, app.state.stop_streams = streams, streams.stop
    return app


def _routes(subject: Subject, commands: Commands, streams: Streams) -> list[Route]:
    """What the app answers."""
    desk, store = Desk(subject), subject.store
    plain: dict[str, Handler] = {
        "/healthz": _healthz,
        "/readyz": _readyz(subject),
        "/ambassador/v0/check_alive": _healthz,
        "/ambassador/v0/check_ready": _readyz(subject),
        "/rules": _rules(store),
        "/metrics": _metrics(desk, subject.metrics),
        "/api/v1/openapi.json": _openapi,
    }
    routes = [Route(path, handler, methods=["GET"]) for path, handler in plain.items()]
    for name, answering in ANSWERS.items():
        methods = ["GET", "POST"] if name == "explain" else ["GET"]
        routes.append(Route(f"/api/v1/{name}", _answer(desk, answering), methods=methods))
    routes.append(Route("/api/v1/releases/{path:path}", _command(desk, commands), methods=["POST"]))
    routes.append(Route("/api/v1/evidence", partial(evidence_response, desk, commands), methods=["GET"]))
    routes.append(Route("/api/v1/events", _events(desk, streams), methods=["GET"]))
    answerers = {name: partial(answering, desk) for name, answering in PAGES.items()}
    return [*routes, *page_routes(answerers, streams, desk.run, json_response)]


async def _healthz(_: Request) -> Response:
    return PlainTextResponse("alive\n")


def _readyz(subject: Subject) -> Handler:
    store = subject.store

    def verbose(request: Request) -> str:
        """The rules and their age, and what is watched, a line each, where `?verbose` asks for it."""
        if "verbose" not in request.query_params:
            return ""
        age = f"rules: generation {store.generation}, {_age(subject)}"
        volumes: list[str] = getattr(store.source, "volume_lines", list)()
        return "".join(f"{each}\n" for each in (age, *volumes, *subject.sources()))

    async def readyz(request: Request) -> Response:
        if subject.draining():
            return PlainTextResponse("not ready: shutting down\n", status_code=503)
        if store.generation and (waiting := subject.waiting()):
            return PlainTextResponse(f"not ready: {waiting}\n{verbose(request)}", status_code=503)
        if store.generation:
            return PlainTextResponse(f"ready: rules {store.generation} are in force\n{verbose(request)}")
        reason = store.error or "they were not read yet"
        text = f"not ready: no rules are in force: {reason}\n{verbose(request)}"
        return PlainTextResponse(text, status_code=503)

    return readyz


def _age(subject: Subject) -> str:
    store = subject.store
    if not store.since:
        return "never in force"
    state = "the newest" if store.error is None else "the last good"
    return f"in force for {max(subject.clock() - store.since, 0.0):.1f} s, {state}"


def _rules(store: RuleStore) -> Handler:
    shown: tuple[object, bytes] = None, b""

    async def rules(_: Request) -> Response:
        nonlocal shown
        # With many Mappings it takes long, in the loop that serves the proxy's clients.
        state = store.generation, store.error, store.diagnostics
        if shown[0] != state:
            shown = state, json.dumps(describe_rules(store), ensure_ascii=False, separators=(",", ":")).encode()
        return in_pieces(shown[1], "application/json")

    return rules


def _metrics(desk: Desk, metrics: MetricsRenderer) -> Handler:
    async def handler(request: Request) -> Response:
        accept = request.headers.get("accept", "")
        # Those of this moment, and not the ones that pages share.
        return in_pieces(*await desk.run(lambda: metrics.expose(accept)))

    return handler


async def _openapi(_: Request) -> Response:
    return json_response(openapi())


def _events(desk: Desk, streams: Streams) -> Handler:
    async def handler(request: Request) -> Response:
        busy = "as many streams are open as there may be: ask /api/v1/overview now and then instead"
        return streams.open(events(desk), request.method) or error_response(503, "busy", busy, {"retry-after": "5"})

    return handler


def _command(desk: Desk, commands: Commands) -> Handler:
    async def handler(request: Request) -> Response:
        if path_of(request)[1] == ROLLED_BACK:
            return json_response(await rolled_back_answer(desk, commands, request))
        answer = await command_answer(desk, commands, request)
        return json_response(answer, tag_of(answer))

    return handler


def _answer(desk: Desk, answering: Answering) -> Handler:
    async def answer(request: Request) -> Response:
        answer = await answering(desk, request)
        # A long answer would hold up the loop, too.
        return in_pieces(await desk.run(lambda: encoded(answer)), "application/json", tag_of(answer))

    return answer


async def _refused(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, Refused)
    return error_response(exc.status, exc.code, exc.message, exc.headers)


async def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    if exc.status_code == 404:
        return error_response(404, "not-found", "there is nothing at this path; /api/v1/openapi.json lists the API")
    return error_response(exc.status_code, "not-allowed", exc.detail, exc.headers)


def json_response(value: Any, headers: Dict[str, str] | None = None) -> Response:
    """A value as JSON."""
    return in_pieces(encoded(value), "application/json", headers)


def encoded(value: Any) -> bytes:
    """A value as JSON. What a terminal could act on, or what turns the reading direction, is escaped."""
    return json.dumps(value, separators=(",", ":")).encode()


def in_pieces(body: bytes, media_type: str, headers: Dict[str, str] | None = None) -> Response:
    """A response that is sent in pieces: a client that reads slowly then holds no copy of the rest in our memory."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), _PIECE):
            yield body[start : start + _PIECE]

    return StreamingResponse(
        pieces(), media_type=media_type, headers={"content-length": str(len(body)), **(headers or {})}
    )
