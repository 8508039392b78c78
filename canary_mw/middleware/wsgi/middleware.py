"""The WSGI shell: `CanaryWSGIMiddleware` decides about every request, and forwards those that are another service's.

Nothing is buffered, and nothing that goes to the wrapped app is touched but for `environ["canary_mw.decision"]`, and
for headers that count from trusted peers only, where some are named.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as Dict
from random import random
from typing import TYPE_CHECKING
from weakref import WeakSet

from canary_mw.client.limits import Limits
from canary_mw.exceptions import ClientDisconnected, ClientError
from canary_mw.forking import after_fork, ensure_forked_hooks
from canary_mw.forwarding.hop import HopContext
from canary_mw.http.messages import RequestHead
from canary_mw.middleware.base import MiddlewareBase, Rules
from canary_mw.middleware.wsgi.environ import environ_key, request_head
from canary_mw.middleware.wsgi.relay import SyncForwarder, WSGIResult, observe_body, send_reply
from canary_mw.observability.counters import RefusalCounters
from canary_mw.observability.observers import Observer
from canary_mw.routing.decision import decide
from canary_mw.routing.group import Decision
from canary_mw.types import Environ, ExcInfo, StartResponse, Write, WSGIApp
from canary_mw.upstreams.endpoints import DNS_INTERVAL
from canary_mw.upstreams.shadows import ShadowSender
from canary_mw.upstreams.sync import SyncUpstreams

if TYPE_CHECKING:
    import httpx


class CanaryWSGIMiddleware(MiddlewareBase):
    """WSGI middleware (PEP 3333) that routes by Mappings; the twin of `CanaryMiddleware`.

    A request that matches nothing, or whose Mapping leads to the service that this process is, goes to the wrapped app
    with `environ["canary_mw.decision"]` set to the `Decision` or None. All others are forwarded to their service.
    Rules are loaded at the first request of each process, so that a server may fork after the import.

    Args:
        app: the WSGI app behind.
        rules: a file or directory of rules, a `ConfigSource`, or a `RuleStore`, which its owner stops.
        local: names of the service that this process is; see `CanaryMiddleware`, also for all that follow.
        services: WSGI apps of this process by the service that they answer for.
        transports: httpx transports for threads (`httpx.BaseTransport`) by service.

    Raises:
        ConfigError: an argument that cannot work.
    """

    def __init__(
        self,
        app: WSGIApp,
        *,
        rules: Rules,
        local: str | Iterable[str] = (),
        services: Dict[str, WSGIApp] | None = None,
        transports: Dict[str, "httpx.BaseTransport"] | None = None,
        upstreams: Dict[str, str | Sequence[str]] | None = None,
        roll: Callable[[], float] = lambda: random() * 100.0,
        trusted: Iterable[str] = (),
        trusted_headers: Iterable[str] = (),
        header_key_file: str | os.PathLike[str] | None = None,
        secrets: str | os.PathLike[str] | None = None,
        observers: Sequence[Observer] = (),
        hop_id: str | None = None,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        dns_interval: float = DNS_INTERVAL,
        replay_limit: int = 65536,
        shadow_limit: int = 100,
        shadow_writes: bool = False,
    ) -> None:
        super().__init__(
            "wsgi",
            rules,
            local,
            roll=roll,
            trusted=trusted,
            trusted_headers=trusted_headers,
            header_key_file=header_key_file,
            observers=observers,
            hop_id=hop_id,
            shadow_writes=shadow_writes,
        )
        self.app = app
        self.upstreams = SyncUpstreams(upstreams, transports, services, limits, dns_interval, secrets=secrets)
        self._bounds = replay_limit, shadow_limit
        self._begin()
        _middlewares.add(self)

    def _begin(self) -> None:
        """What each process has for itself."""
        replay_limit, shadow_limit = self._bounds
        self.shadows = ShadowSender(self.upstreams.background_upstreams, shadow_limit)
        self.refusals = RefusalCounters()
        self._forwarder = SyncForwarder(self.upstreams, self.shadows, replay_limit, self.refusals)
        self.started = False

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        ensure_forked_hooks()
        if not self.started:
            self.start()
        table = self.store.table
        try:
            head: RequestHead = request_head(environ)
            if self.trusted_headers is not None:
                self._environ_without_untrusted(head, environ)
            if table.request_policy is not None:
                head = table.admit(head)
        except ClientError as exc:
            return self._refuse(exc, environ, start_response)
        decision = decide(table, head, self.roll())
        if self.observed:
            return self._observed(decision, head, self.hop(head, table.settings), environ, start_response)
        if decision is None or (decision.local and decision.shadow is None):
            environ["canary_mw.decision"] = decision
            return self.app(environ, start_response)
        return self._serve(decision, head, self.hop(head, table.settings), environ, start_response).body

    def ejections(self) -> dict[str, int]:
        """How often endpoints were ejected; see `Upstreams.ejections`."""
        return self.upstreams.ejections()

    def close(self) -> None:
        """Close the connections, and follow the rules no longer; a later request starts again.

        Nobody has to: what runs beside the requests holds up no exit.
        """
        self._stop()
        if self.upstreams.background.started:
            self.upstreams.background.run(self.shadows.aclose())
        self.upstreams.close()

    def _environ_without_untrusted(self, head: RequestHead, environ: Environ) -> None:
        """Take out the headers that the peer may not send, for the rules and for whoever answers."""
        kept = self._strip_untrusted(head.headers, head.client)
        for name, _ in set(head.headers).difference(kept):
            del environ[environ_key(name)]
        head.headers = kept

    def _serve(
        self,
        decision: Decision | None,
        head: RequestHead,
        hop: HopContext,
        environ: Environ,
        start_response: StartResponse,
    ) -> WSGIResult:
        """Have a request answered by who is to."""
        if decision is not None and not decision.local:
            return self._forwarder.forward(decision, head, hop, environ, start_response)
        environ["canary_mw.decision"] = decision
        if decision is None or decision.shadow is None:
            return WSGIResult(self.app(environ, start_response))
        return WSGIResult(self._forwarder.serve_and_shadow(self.app, decision, head, hop, environ, start_response))

    def _observed(
        self,
        decision: Decision | None,
        head: RequestHead,
        hop: HopContext,
        environ: Environ,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        since = self.notify_decided(decision, head)
        status: int | None = None

        def noting(line: str, headers: list[tuple[str, str]], exc_info: ExcInfo = None, /) -> Write:
            nonlocal status
            status = int(line[:3])
            return start_response(line, headers, exc_info)

        def ended(why: BaseException | None) -> None:
            left = isinstance(why, ClientDisconnected)
            reason = "client left" if left else type(why).__name__ if why else forwarded.reason
            self.notify_finished(decision, head, status, since, reason)

        try:
            forwarded = self._serve(decision, head, hop, environ, noting)
        except BaseException as exc:
            self.notify_finished(decision, head, status, since, type(exc).__name__)
            raise
        return observe_body(forwarded.body, ended)

    def _refuse(self, error: ClientError, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        body, reason = send_reply(self._forwarder.refusal(error), start_response)
        path = (environ.get("RAW_URI") or environ.get("REQUEST_URI") or environ.get("PATH_INFO", "")).partition("?")[0]
        self.notify_refused(environ["REQUEST_METHOD"], path, error.status_hint, reason)
        return body


_middlewares: "WeakSet[CanaryWSGIMiddleware]" = WeakSet()


def _after_fork() -> None:
    for middleware in list(_middlewares):
        middleware.upstreams.begin()
        middleware._begin()


after_fork(_after_fork)
