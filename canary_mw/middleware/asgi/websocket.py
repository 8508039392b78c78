"""Websockets of an ASGI server, served from the service of their Mapping."""

from collections.abc import Callable
from functools import partial

from canary_mw.exceptions import ClientError
from canary_mw.forwarding.exchange import (
    direct_response,
    exchange,
    exchange_above_net,
    exchange_with_stable,
    upstream_error_reply,
)
from canary_mw.forwarding.fallback import SafetyNet
from canary_mw.forwarding.headers import response_head
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Reply
from canary_mw.forwarding.replies import text_reply
from canary_mw.forwarding.requests import upstream_request
from canary_mw.http.framing import check_head
from canary_mw.http.messages import RequestHead, ResponseHead
from canary_mw.middleware.asgi.fallback import answered_by_gray, call_as_stable
from canary_mw.middleware.asgi.in_process import app_scope_of, copy_back
from canary_mw.middleware.asgi.replies import deny_handshake
from canary_mw.middleware.asgi.services import start_error
from canary_mw.middleware.asgi.websocket_tunnel import WebSocketTunnel
from canary_mw.routing.decided import Decision
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send
from canary_mw.upstreams.aio import Upstreams


async def serve_websocket(
    decision: Decision,
    head: RequestHead,
    hop: HopContext,
    scope: Scope,
    receive: Receive,
    send: Send,
    upstreams: Upstreams,
    refusal: Callable[[ClientError], Reply],
    net: SafetyNet | None,
) -> None:
    """Serve one websocket as `tunnel` does; one that cannot be forwarded is denied.

    Args:
        refusal: the reply to a request that is refused, which is counted.
    """
    try:
        if "canary_mw.checked" not in scope:
            check_head("GET", scope.get("raw_path") or b"/", list(head.headers), "1.1")
        await tunnel(decision, head, hop, scope, receive, send, upstreams, net)
    except ClientError as exc:
        upstreams.errors.refused(decision.mapping, exc)
        await deny_handshake(scope, receive, send, refusal(exc))


async def tunnel(
    decision: Decision,
    head: RequestHead,
    hop: HopContext,
    scope: Scope,
    receive: Receive,
    send: Send,
    upstreams: Upstreams,
    net: SafetyNet | None = None,
) -> None:
    """Serve one websocket from the service of its Mapping.

    The client is accepted after the upstream has accepted. When the upstream denies the upgrade, the client gets its
    response. A Mapping that does not allow the upgrade denies it with 403, as Envoy does.

    Args:
        net: the safety net below a request of a gray variant.

    Raises:
        ClientError: the request cannot be forwarded as it is, and no response was sent yet.
    """
    mapping = decision.mapping
    reply = direct_response(decision, head)
    if reply is None and not decision.allows_upgrade("websocket"):
        # `direct_response` finds refused upgrades by the Upgrade header, which not every server passes on.
        reply = text_reply(403)
    if not decision.allows_upgrade("websocket") and mapping.redirect is None:
        upstreams.errors.refused_upgrade(mapping)
    app = upstreams.app(decision)
    if app is not None and reply is None and (error := start_error(app)) is not None:
        upstreams.errors.failed(mapping.service.text, mapping.name, error)
        reply = upstream_error_reply(mapping, error)
    if reply is not None:
        await deny_handshake(scope, receive, send, reply)
    elif app is not None and net is not None:
        gray = partial(_call_app, app, decision, head, hop)
        await _call_gray(gray, net, head, hop, scope, receive, send, upstreams)
    elif app is not None:
        await _call_app(app, decision, head, hop, scope, receive, send)
    elif net is None:
        await WebSocketTunnel(decision, upstreams).serve(exchange(decision, head, hop), scope, receive, send)
    else:
        steps = exchange_above_net(decision, head, hop, net)
        answer = partial(_answer_for_stable, net, head, hop, scope, send)
        try:
            await WebSocketTunnel(decision, upstreams).serve(steps, scope, receive, send, answer)
        finally:
            net.close()


async def _call_gray(
    app: ASGIApp,
    net: SafetyNet,
    head: RequestHead,
    hop: HopContext,
    scope: Scope,
    receive: Receive,
    send: Send,
    upstreams: Upstreams,
) -> None:
    """Call an app that is a gray variant; where it denies the handshake with a status of a failure, stable answers."""
    taken: list[Message] = []

    async def receive_and_keep() -> Message:
        message = await receive()
        if message["type"] == "websocket.connect":
            taken.append(message)
        return message

    async def receive_again() -> Message:
        return taken.pop() if taken else await receive()

    net.begin_in_process(head)
    try:
        if await answered_by_gray(app, net, scope, receive_and_keep, send):
            return
        if not await _answer_for_stable(net, head, hop, scope, send, receive_again):
            steps = exchange_with_stable(head, hop, net)
            await WebSocketTunnel(net.stable_decision, upstreams).serve(steps, scope, receive_again, send)
    finally:
        net.close()


async def _answer_for_stable(
    net: SafetyNet, head: RequestHead, hop: HopContext, scope: Scope, send: Send, receive: Receive
) -> bool:
    """Call the app that answers for stable, if one does; returns whether it did."""
    stable = net.stable
    if stable is None or stable.app is None:
        return False
    app: ASGIApp = stable.app
    if stable.decision is not None and not stable.wrapped:
        app = partial(_call_app, stable.app, stable.decision, head, hop)
    await call_as_stable(app, net, hop, scope, receive, send)
    return True


async def _call_app(
    app: ASGIApp, decision: Decision, head: RequestHead, hop: HopContext, scope: Scope, receive: Receive, send: Send
) -> None:
    """Call an app of this process. Its messages are relayed as they come, with changed headers in its response head."""
    request = upstream_request(decision, head, hop)

    async def relay(message: Message) -> None:
        copy_back(app_scope, scope)
        if message["type"] in ("websocket.accept", "websocket.http.response.start"):
            headers = [(bytes(n), bytes(v)) for n, v in message.get("headers", ())]
            response = ResponseHead(message.get("status", 101), headers)
            message = {**message, "headers": response_head(decision.mapping, response, head, hop).headers}
        await send(message)

    app_scope = app_scope_of(scope, request, head.mount)
    try:
        await app(app_scope, receive, relay)
    finally:
        copy_back(app_scope, scope)
