"""ASGI apps of this process that serve a service in place of an upstream, or answer while a shadow gets a copy."""

import asyncio
from urllib.parse import unquote

from canary_mw.exceptions import ClientError
from canary_mw.forwarding.exchange import Exchange, finish_with_error, finish_with_response
from canary_mw.forwarding.headers import framed_headers
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.forwarding.requests import upstream_request
from canary_mw.http.messages import NO_MOUNT, Mount, RequestHead, ResponseHead
from canary_mw.middleware.asgi.services import start_error
from canary_mw.routing.decided import Decision
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send
from canary_mw.upstreams.body_buffer import ReplayBuffer
from canary_mw.upstreams.shadows import ShadowSender

# What of a scope is changed for the app.
_REQUEST_KEYS = frozenset(("method", "path", "raw_path", "query_string", "root_path", "headers"))
# What belongs to an app, and not to the request: layers outside see that of the wrapped one.
_APP_KEYS = frozenset(("app", "router", "state"))


async def call_app(
    app: ASGIApp, exchange: Exchange, scope: Scope, receive: Receive, send: Send, mount: Mount = NO_MOUNT
) -> Reply | None:
    """Call an app of this process. Its messages are relayed as they come; only its response head goes to the exchange.

    Args:
        mount: of the request; the app is mounted there, too.

    Returns:
        None when the app has responded, else the reply to send in its place.
    """
    try:
        request = next(exchange)
    except StopIteration as stop:
        return _reply_of(stop.value)
    if (error := start_error(app)) is not None:
        return finish_with_error(exchange, error)
    reply: Reply | None = None

    app_scope = {**app_scope_of(scope, request, mount), "method": request.method}

    async def relay(message: Message) -> None:
        nonlocal reply
        copy_back(app_scope, scope)
        if message["type"] == "http.response.start":
            head = ResponseHead(message["status"], [(bytes(n), bytes(v)) for n, v in message.get("headers", ())])
            outcome = finish_with_response(exchange, head)
            reply = _reply_of(outcome)
            if isinstance(outcome, Relay):
                message = {**message, "status": outcome.head.status, "headers": outcome.head.headers}
        if reply is None:
            await send(message)

    try:
        await app(app_scope, receive, relay)
    finally:
        copy_back(app_scope, scope)
    return reply


async def call_and_copy(
    app: ASGIApp,
    shadows: ShadowSender,
    replay_limit: int,
    decision: Decision,
    head: RequestHead,
    hop: HopContext,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Call the wrapped app, and copy the request to the shadow of its group."""
    try:
        shadow = upstream_request(decision, head, hop).shadow
    except ClientError:
        # The request cannot be forwarded, because of a loop for example. The app decides how it responds.
        shadow = None
    if shadow is None:
        await app(scope, receive, send)
        return
    buffer = ReplayBuffer(None, replay_limit, asyncio.get_running_loop())

    async def receive_and_feed() -> Message:
        message = await receive()
        if message["type"] == "http.request":
            buffer.feed(bytes(message.get("body", b"")), last=not message.get("more_body", False))
        return message

    shadows.send_when_complete(shadow, buffer)
    try:
        await app(scope, receive_and_feed, send)
    finally:
        buffer.close()


def copy_back(app_scope: Scope, scope: Scope) -> None:
    """Copy what an app has written into its scope to that of the server, where layers outside look for it.

    The request of the scope stays that of the client, and its app the wrapped one.
    """
    scope.update({key: value for key, value in app_scope.items() if key not in _REQUEST_KEYS | _APP_KEYS})


def _reply_of(outcome: Relay | Reply) -> Reply | None:
    return outcome if isinstance(outcome, Reply) else None


def app_scope_of(scope: Scope, request: UpstreamRequest, mount: Mount) -> Scope:
    """The scope for an app of this process: the request that would be sent, under the root path of the wrapped app."""
    path, _, query = request.target.partition(b"?")
    # The server of an upstream would put it there.
    path = mount.added + path
    return {
        **scope,
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query,
        "root_path": scope["root_path"] if mount.root else "",
        "headers": framed_headers(request),
    }
