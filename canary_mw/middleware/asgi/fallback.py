"""Apps of this process above and below the safety net of a release: gray ones that fail, and those of stable."""

import logging
from collections.abc import Awaitable
from contextlib import nullcontext

from canary_mw.forwarding.exchange import Exchange, exchange
from canary_mw.forwarding.fallback import FALLBACK_HEADER, SafetyNet
from canary_mw.forwarding.hop import HopContext
from canary_mw.host import HostLogger
from canary_mw.http.messages import Mount, RequestHead
from canary_mw.middleware.asgi.in_process import call_app
from canary_mw.middleware.asgi.replies import send_reply
from canary_mw.propagate.carried import carried
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send

logger = HostLogger(logging.getLogger("canary_mw.relay"))

# The messages that begin an answer; all but the last carry headers.
_STARTS = frozenset(("http.response.start", "websocket.accept", "websocket.http.response.start", "websocket.close"))


async def answer_for_stable(
    net: SafetyNet, head: RequestHead, hop: HopContext, scope: Scope, receive: Receive, send: Send
) -> None:
    """Call the app that answers for stable.

    Raises:
        ClientError: the request cannot be sent to stable's service.
    """
    stable = net.stable
    assert stable is not None
    if stable.decision is None or stable.wrapped:
        await call_as_stable(stable.app, net, hop, scope, receive, send)
        return
    service = as_app(stable.app, exchange(net.stable_decision, head, hop, lambda: False), head.mount)
    await call_as_stable(service, net, hop, scope, receive, send)


async def call_as_stable(
    app: ASGIApp, net: SafetyNet, hop: HopContext, scope: Scope, receive: Receive, send: Send
) -> None:
    """Call an app with a scope of its own, in which the decision is that of stable."""
    assert net.stable is not None
    assigned = scope.get("canary_mw")
    fresh = {**scope, "canary_mw": net.stable.decision}

    def start(message: Message) -> Awaitable[None]:
        if message["type"] in _STARTS:
            net.answered()
            if hop.trusted and message["type"] != "websocket.close":
                header = (FALLBACK_HEADER, (net.kind or "").encode())
                message = {**message, "headers": [*(message.get("headers") or ()), header]}
        return send(message)

    lanes = carried()
    try:
        with nullcontext() if lanes is None else lanes.as_stable(net.stable.decision):
            await app(fresh, receive, start)
    finally:
        # Layers outside look into their own scope for what the app has written.
        scope.update(fresh, canary_mw=assigned)


def as_app(app: ASGIApp, exchange: Exchange, mount: Mount) -> ASGIApp:
    """An app in place of a service, as an app that answers the requests of a client; see `call_app`."""

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        reply = await call_app(app, exchange, scope, receive, send, mount)
        if reply is not None:
            await send_reply(send, reply)

    return service


async def answered_by_gray(app: ASGIApp, net: SafetyNet, scope: Scope, receive: Receive, send: Send) -> bool:
    """Call an app that is a gray variant; returns False, and has sent nothing, where stable has to answer.

    The app of such an answer is told that the client has left, if it sends more than one piece.
    """
    begun = dropped = left = False

    async def receive_and_note() -> Message:
        nonlocal left
        message = await receive()
        left = left or message["type"] in ("http.disconnect", "websocket.disconnect")
        return message

    async def hold(message: Message) -> None:
        nonlocal begun, dropped
        if not begun:
            if message["type"] not in _STARTS:
                # Early hints: they are of gray, and stable may still answer.
                return
            begun = True
            dropped = not left and net.ask_about(message.get("status", 0))
        if not dropped:
            await send(message)
        elif message.get("more_body", False):
            raise OSError("the rest of this answer is not sent")

    try:
        await app(scope, receive_and_note, hold)
    except Exception:
        if not begun and not left and net.ask_about(500):
            logger.exception("gray variant %s of release %s failed; stable answers", net.variant, net.release)
        elif not dropped:
            raise
    return net.stable is None
