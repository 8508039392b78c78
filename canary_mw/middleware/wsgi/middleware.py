"""The WSGI middleware: `CanaryWSGIMiddleware` routes every request, and forwards those of other services.

Bodies are not buffered. The wrapped app gets the server's environ with `environ["canary_mw.decision"]` added, and
without those headers that only trusted peers may send, where `trusted_headers` names any.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as Dict
from functools import partial
from random import random
from time import perf_counter
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from canary_mw.client.limits import Limits
from canary_mw.exceptions import ClientDisconnected, ClientError
from canary_mw.forking import after_fork, ensure_forked_hooks
from canary_mw.forwarding.fallback import SafetyNet
from canary_mw.forwarding.hop import HopContext
from canary_mw.http.messages import RequestHead
from canary_mw.middleware.audience.sync import SyncAsker
from canary_mw.middleware.base import MiddlewareBase, Rules
from canary_mw.middleware.fallback import SafetyNets
from canary_mw.middleware.filters.wsgi import SyncGate, SyncPassage, change_environ
from canary_mw.middleware.options import Arguments
from canary_mw.middleware.wsgi.environ import environ_key, request_head
from canary_mw.middleware.wsgi.lanes import run_with_lanes
from canary_mw.middleware.wsgi.observed_body import ObservedBody, length_of, observe_body
from canary_mw.middleware.wsgi.relay import SyncForwarder
from canary_mw.middleware.wsgi.relayed_body import WSGIResult, send_reply
from canary_mw.middleware.wsgi.release import noting, with_headers
from canary_mw.middleware.wsgi.user import with_user
from canary_mw.observability.counters import RefusalCounters
from canary_mw.observability.observers import Observer
from canary_mw.propagate.carried import Carried
from canary_mw.routing.decided import Decision
from canary_mw.routing.table import RouteTable
from canary_mw.types import Environ, ExcInfo, StartResponse, Write, WSGIApp
from canary_mw.upstreams.shadows import ShadowSender
from canary_mw.upstreams.sync import SyncUpstreams

if TYPE_CHECKING:
    import httpx


class CanaryWSGIMiddleware(MiddlewareBase):
    """WSGI middleware (PEP 3333) that routes by Mappings; the counterpart of `CanaryMiddleware`.

    A request that matches no Mapping, or whose Mapping leads to the service that this process runs, goes to the wrapped
    app, with `environ["canary_mw.decision"]` set to the `Decision` or None. All other requests are forwarded to their
    service. Rules are loaded at the first request of each process, so that a server may fork after the import.

    Args:
        app: the wrapped WSGI app.
        rules: a file or directory of rules, a `ConfigSource`, or a `RuleStore`, which its owner stops.
        local: names of the service that this process runs; see `CanaryMiddleware` for this and all other arguments.
        services: WSGI apps of this process by service; they serve its requests in place of an upstream.
        transports: synchronous httpx transports (`httpx.BaseTransport`) by service.

    Raises:
        ConfigError: an argument is not valid. With `strict`, also rules that are missing or in error.
    """

    upstreams: SyncUpstreams

    def __init__(
        self,
        app: WSGIApp,
        *,
        rules: Rules | None = None,
        local: str | Iterable[str] = (),
        services: Dict[str, WSGIApp] | None = None,
        transports: Dict[str, "httpx.BaseTransport"] | None = None,
        upstreams: Dict[str, str | Sequence[str]] | None = None,
        roll: Callable[[], float] = lambda: random() * 100.0,
        trusted: Iterable[str] | None = None,
        trusted_headers: Iterable[str] | None = None,
        header_key_file: str | os.PathLike[str] | None = None,
        secrets: str | os.PathLike[str] | None = None,
        observers: Sequence[Observer] = (),
        hop_id: str | None = None,
        limits: Limits | None = None,
        dns_interval: float | None = None,
        replay_limit: int | None = None,
        shadow_limit: int | None = None,
        shadow_writes: bool | None = None,
        strict: bool | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        state: str | os.PathLike[str] | None = None,
        admin_host: str | None = None,
        admin_port: int | None = None,
        admin_token_file: str | os.PathLike[str] | None = None,
        filters: bool | None = None,
        guard_unmapped: bool | None = None,
        unguarded: Iterable[str] | None = None,
    ) -> None:
        given = Arguments(
            *(upstreams, trusted, trusted_headers, header_key_file, secrets, hop_id, limits, dns_interval),
            *(replay_limit, shadow_limit, shadow_writes, strict, run_dir, state, admin_host, admin_port),
            *(admin_token_file, filters, guard_unmapped, unguarded),
        )
        super().__init__("wsgi", rules, local, roll=roll, observers=observers, arguments=given)
        self.app = app
        options = self.options
        create = partial(SyncUpstreams, secrets=options.secrets, tracer=self.tracer, discovery=self.discovery)
        self.upstreams = create(options.upstreams, transports, services, options.limits, options.dns_interval)
        self._init_process()
        if options.strict and self.enabled:
            # Here, so that the server does not start: the rules are loaded again, and followed, in each worker.
            self._check_rules()
        _middlewares.add(self)
        if self.admin_port is not None:
            self.admin_port.open_in_worker()

    def _init_process(self) -> None:
        """Set up what each process has for itself; called again in a forked child."""
        options = self.options
        self.upstreams.errors.tally = self.tally
        self.shadows = ShadowSender(self.upstreams.background_upstreams, options.shadow_limit, self.tally)
        self.refusals = RefusalCounters(tally=self.tally)
        self.nets = SafetyNets(self)
        self.audience = SyncAsker(self.answers, self.upstreams)
        self._forwarder = SyncForwarder(self.upstreams, self.shadows, options.replay_limit, self.refusals)
        self.gate = None if self.filters is None else SyncGate(self, self.filters, self._forwarder.refusal)
        self._prepare_start()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        ensure_forked_hooks()
        if not self.started:
            self.start()
        table = self.store.table
        if table.has_extras or self.told.on:
            return self._call_with_extras(table, environ, start_response)
        try:
            head: RequestHead = request_head(environ)
            if self.trusted_headers is not None:
                self._environ_without_untrusted(head, environ)
        except ClientError as exc:
            return self._refuse(exc, environ, start_response)
        decision = environ["canary_mw.decision"] = self.decide(table, head, self.roll(), self.person)
        if self.observed:
            return self._observe(decision, head, self.hop(head, table.settings), environ, start_response)
        if decision is None or (decision.local and decision.shadow is None):
            return self.app(environ, start_response)
        return self._serve(decision, head, self.hop(head, table.settings), environ, start_response).body

    def _call_with_extras(self, table: RouteTable, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request of a table whose Module or releases ask for more than a look-up."""
        try:
            head: RequestHead = request_head(environ)
            self._environ_without_untrusted(head, environ, table)
            head = self._begin(table, head, change_environ, environ)
        except ClientError as exc:
            return self._refuse(exc, environ, start_response)
        person = with_user(self.release.person_of(table, head), table, environ)
        began = None
        if table.filters is None or self.gate is None:
            if table.asks_person:
                decision, person = self.audience.decide(self.decide, table, head, self.roll(), person, environ)
            else:
                decision = self.decide(table, head, self.roll(), person)
        else:
            passage = self.gate.admit(table, head, person, environ, start_response)
            if not isinstance(passage, SyncPassage):
                return passage
            decision, head, person, start_response, began = passage
        environ["canary_mw.decision"] = decision
        start = with_headers(noting(start_response, head, table), self.release.headers(table, decision, head))
        net = self.nets.open(table, decision, head, person)
        hop = self.hop(head, table.settings)
        if self.observed:
            serve = partial(self._observe, decision, head, hop, environ, start, net, began)
        else:
            serve = partial(self._body, decision, head, hop, environ, start, net)
        return run_with_lanes(Carried(head.headers, decision, table), serve, environ)

    def close(self) -> None:
        """Close the connections, and stop following the rules; a later request starts again.

        Calling it is optional: the background threads do not delay the exit of the process.
        """
        self._stop()
        if self.upstreams.background.started:
            self.upstreams.background.run(self.shadows.aclose())
        self.upstreams.close()

    def _environ_without_untrusted(self, head: RequestHead, environ: Environ, table: RouteTable | None = None) -> None:
        """Remove the headers that the peer may not send; rules, app and upstream see only the others."""
        given = head.headers
        kept = self._strip_untrusted(given, head.client, table)
        if kept is not given:
            changed = {name for name, _ in set(given).difference(kept)}
            for name in changed:
                del environ[environ_key(name)]
            # Of `baggage` a part is removed.
            environ.update((environ_key(name), value.decode("latin-1")) for name, value in kept if name in changed)
        head.headers = kept

    def _serve(
        self,
        decision: Decision | None,
        head: RequestHead,
        hop: HopContext,
        environ: Environ,
        start_response: StartResponse,
        net: SafetyNet | None = None,
    ) -> WSGIResult:
        """Call the wrapped app, or forward the request."""
        if decision is not None and not decision.local:
            return self._forwarder.forward(decision, head, hop, environ, start_response, net)
        app = self.app
        if decision is not None and decision.shadow is not None:
            app = partial(self._forwarder.serve_and_shadow, app, decision, head, hop)
        if net is not None and decision is not None:
            return self._forwarder.call_gray(app, net, decision, head, hop, environ, start_response)
        return WSGIResult(app(environ, start_response))

    def _body(self, *args: Any) -> Iterable[bytes]:
        return self._serve(*args).body

    def _observe(
        self,
        decision: Decision | None,
        head: RequestHead,
        hop: HopContext,
        environ: Environ,
        start_response: StartResponse,
        net: SafetyNet | None = None,
        began: float | None = None,
    ) -> Iterable[bytes]:
        decided = self.notify_decided(decision, head)
        since = decided if began is None else began
        status: int | None = None
        first_byte: float | None = None
        length: int | None = None
        observed: ObservedBody | None = None
        counted = False

        def recording_start(line: str, headers: list[tuple[str, str]], exc_info: ExcInfo = None, /) -> Write:
            nonlocal status, first_byte, length
            status, first_byte, length = int(line[:3]), perf_counter(), length_of(headers)
            if observed is not None:
                observed.expected = length
            return start_response(line, headers, exc_info)

        def count(body: int) -> None:
            nonlocal counted
            counted = True
            self.count_finished(decision, head, status, since, result.reason, net, first_byte, body)

        def on_end(error: BaseException | None, body: int) -> None:
            left = isinstance(error, ClientDisconnected)
            reason = "client left" if left else type(error).__name__ if error else result.reason
            self.notify_finished(decision, head, status, since, reason, net, first_byte, body, counted=counted)

        try:
            result = self._serve(decision, head, hop, environ, recording_start, net)
        except BaseException as exc:
            self.notify_finished(decision, head, status, since, type(exc).__name__, net, first_byte)
            raise
        observed = observe_body(result.body, on_end)
        observed.expected, observed.count = length, count
        return observed

    def _refuse(self, error: ClientError, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        body, reason = send_reply(self._forwarder.refusal(error), start_response)
        path = (environ.get("RAW_URI") or environ.get("REQUEST_URI") or environ.get("PATH_INFO", "")).partition("?")[0]
        self.notify_refused(environ["REQUEST_METHOD"], path, error.status_hint, reason)
        return body


_middlewares: "WeakSet[CanaryWSGIMiddleware]" = WeakSet()


def _after_fork() -> None:
    for middleware in list(_middlewares):
        middleware.upstreams.reset_after_fork()
        middleware._init_process()


after_fork(_after_fork)
