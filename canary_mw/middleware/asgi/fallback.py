"""Apps of this process that answer for stable, in place of a gray variant that failed."""

from collections.abc import Awaitable

from canary_mw.forwarding.exchange import exchange
from canary_mw.forwarding.fallback import FALLBACK_HEADER, SafetyNet
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Reply
from canary_mw.http.messages import RequestHead
from canary_mw.middleware.asgi.in_process import call_app, copy_back
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send

# The messages that begin an answer; all but the last carry headers.
_STARTS = frozenset(("http.response.start", "websocket.accept", "websocket.http.response.start", "websocket.close"))


async def answer_for_stable(
    net: SafetyNet, head: RequestHead, hop: HopContext, scope: Scope, receive: Receive, send: Send
) -> Reply | None:
    """Call the app that answers for stable.

    Returns:
        None when the app has responded, else the reply to send in its place.

    Raises:
        ClientError: the request cannot be sent to stable's service.
    """
    stable = net.stable
    assert stable is not None
    if stable.decision is None or stable.wrapped:
        await call_as_stable(stable.app, net, hop, scope, receive, send)
        return None
    reply: Reply | None = None
    steps = exchange(net.stable_decision, head, hop, lambda: False)

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal reply
        reply = await call_app(stable.app, steps, scope, receive, send, head.mount)

    await call_as_stable(service, net, hop, scope, receive, send)
    if reply is not None:
        net.finish_with(reply)
    return reply


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

    try:
        await app(fresh, receive, start)
    finally:
        copy_back(fresh, scope)
        scope["canary_mw"] = assigned
