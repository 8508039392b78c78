"""What the ASGI and the WSGI middleware share: the rule store, trusted peers, hop contexts and observers."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter, time

from canary_mw.control.sources.base import ConfigSource
from canary_mw.control.sources.file import FileSource
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.forwarding.fallback import SafetyNet
from canary_mw.forwarding.hop import HopContext
from canary_mw.host import HostLogger
from canary_mw.http.messages import RawHeaders, RequestHead
from canary_mw.locks import check_threads
from canary_mw.middleware.identity import default_hop_id, local_names, new_request_id, via_token
from canary_mw.middleware.release import ReleaseShell
from canary_mw.middleware.settings import ENABLED, is_enabled
from canary_mw.middleware.trust import trusted_headers as as_trusted_headers
from canary_mw.middleware.trust import trusted_peers
from canary_mw.observability.counters import RefusalCounters, RequestCounters, labels_of
from canary_mw.observability.events import Decided, Finished
from canary_mw.observability.observers import Observer, notify
from canary_mw.routing import decision as routing_decision
from canary_mw.routing.decided import Decision
from canary_mw.rules.module import ModuleSettings

logger = HostLogger(logging.getLogger("canary_mw.middleware"))

Rules = str | os.PathLike[str] | ConfigSource | RuleStore


class MiddlewareBase:
    """Base of the middlewares; see `CanaryMiddleware` for the arguments.

    Args:
        mode: "asgi" or "wsgi"; a part of the hop id.

    Attributes:
        store: the rules.
        roll: draws a percent in [0, 100).
        decided_observers, finished_observers: the observers that implement `decided`, and `finished`.
        observed: whether any observer is notified of requests, or counts them.
        trusted_headers: the headers that are removed from requests of untrusted peers, or None.
        release: what releases need of a middleware.
        person: what every decision is told; with header keys, comments in `via` need a signature.
        started: whether the rule store is started.
        enabled: whether the rules count. Without them the wrapped app gets every request.
        refusals: counts the refused requests.
    """

    # Whether the wrapped app is the local service. A proxy wraps no service: it forwards local decisions too.
    wraps = True
    # An attribute of the class, so that `canary_mw.testing` can replace it for all middlewares of the process at once.
    decide = staticmethod(routing_decision.decide)

    def __init__(
        self,
        mode: str,
        rules: Rules,
        local: str | Iterable[str],
        *,
        roll: Callable[[], float],
        trusted: Iterable[str],
        trusted_headers: Iterable[str],
        header_key_file: str | os.PathLike[str] | None,
        observers: Sequence[Observer],
        hop_id: str | None,
        shadow_writes: bool,
    ) -> None:
        check_threads()
        names = local_names(local)
        self.enabled = not self.wraps or is_enabled(os.environ)
        if not self.enabled:
            rules = StaticSource("")
        self._owns_store = not isinstance(rules, RuleStore)
        self.store = rules if isinstance(rules, RuleStore) else _store(rules, names, observers)
        self.roll = roll
        # No record is created when no observer uses it. Counters get `count` calls instead.
        unused = Observer.finished, RequestCounters.finished
        self.decided_observers = [e for e in observers if getattr(type(e), "decided", None) is not Observer.decided]
        self.finished_observers = [e for e in observers if getattr(type(e), "finished", None) not in unused]
        self._count_functions = [
            e.count for e in observers if isinstance(e, RequestCounters) and e not in self.finished_observers
        ]
        self.observed = bool(self.decided_observers or self.finished_observers or self._count_functions)
        self._is_trusted_peer = trusted_peers(trusted)
        self.trusted_headers = as_trusted_headers(trusted_headers, header_key_file, needs_keys=self.enabled)
        paths = [os.fspath(rules)] if isinstance(rules, str | os.PathLike) else []
        token = via_token(hop_id or default_hop_id(mode, names, paths))
        keys = self.trusted_headers.keys if self.trusted_headers else ()
        self.release = ReleaseShell(self._is_trusted_peer, keys)
        self.person = self.release.person
        self._hop_contexts = tuple(
            HopContext(token, trusted, new_request_id, time, roll, shadow_writes, keys[0] if keys else None)
            for trusted in (False, True)
        )
        self.refusals = RefusalCounters()
        self.started = False

    def start(self) -> None:
        """Load the rules and follow their changes; does nothing when started already.

        Raises:
            ConfigError: the threads of the process were patched since the import, so that nothing can be followed.
        """
        check_threads()
        if self.enabled:
            self.store.start()
        else:
            logger.warning("%s is 0: no rules are read, and the app answers every request", ENABLED)
        self.started = True

    def hop(self, head: RequestHead, settings: ModuleSettings) -> HopContext:
        """The hop context of a request: that of a trusted peer, or that of an untrusted one."""
        return self._hop_contexts[settings.trusted_hops > 0 or self._is_trusted_peer(head.client)]

    def notify_decided(self, decision: Decision | None, head: RequestHead) -> float:
        """Notify observers of a decision; returns the `perf_counter` time, for `notify_finished`."""
        since = perf_counter()
        if self.decided_observers:
            sent = decision is not None and decision.sent
            notify(
                self.decided_observers, Decided(head.method, head.path.decode("latin-1"), *labels_of(decision), sent)
            )
        return since

    def notify_finished(
        self,
        decision: Decision | None,
        head: RequestHead,
        status: int | None,
        since: float,
        reason: str | None,
        net: SafetyNet | None = None,
    ) -> None:
        """Notify observers of the end of a request; see `Finished`."""
        seconds = perf_counter() - since
        for count in self._count_functions:
            count(decision, status, seconds)
        if self.finished_observers:
            path = head.path.decode("latin-1")
            sent = decision is not None and decision.sent
            answered_by, kind = (None, None) if net is None else (net.answered_by, net.fallback)
            labels = labels_of(decision)
            record = Finished(head.method, path, status, seconds, *labels, reason, sent, answered_by, kind)
            notify(self.finished_observers, record)

    def notify_refused(self, method: str, path: str, status: int, reason: str | None) -> None:
        """Notify observers of a request that was refused before a decision."""
        for count in self._count_functions:
            count(None, status, 0.0)
        notify(self.finished_observers, Finished(method, path, status, 0.0, reason=reason))

    def _stop(self) -> None:
        self.started = False
        if self._owns_store:
            self.store.stop()

    def _strip_untrusted(self, headers: RawHeaders, client: str | None) -> RawHeaders:
        """The headers without those that this peer may not send; rules, app and upstream see only these."""
        if self.trusted_headers is None:
            return headers
        return self.trusted_headers.strip_untrusted(headers, self._is_trusted_peer(client), time())


def _store(
    rules: str | os.PathLike[str] | ConfigSource, local: frozenset[str], observers: Sequence[Observer]
) -> RuleStore:
    source = FileSource(rules) if isinstance(rules, str | os.PathLike) else rules
    return RuleStore(source, local=local, middleware=True, observers=observers)
