"""What both shells do alike: follow the rules, know whom to believe, mark what passes, and tell who watches."""

import os
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter, time

from canary_mw.control.sources.base import ConfigSource
from canary_mw.control.sources.file import FileSource
from canary_mw.control.store import RuleStore
from canary_mw.forwarding.hop import HopContext
from canary_mw.http.messages import RawHeaders, RequestHead
from canary_mw.middleware.identity import default_hop_id, local_names, new_request_id, via_token
from canary_mw.middleware.trust import trusted_headers as as_trusted_headers
from canary_mw.middleware.trust import trusted_peers
from canary_mw.observability.counters import RefusalCounters, RequestCounters, labels_of
from canary_mw.observability.events import Decided, Finished
from canary_mw.observability.observers import Observer, notify
from canary_mw.routing.group import Decision
from canary_mw.rules.module import ModuleSettings

Rules = str | os.PathLike[str] | ConfigSource | RuleStore


class MiddlewareBase:
    """Base of the middlewares; see `CanaryMiddleware` for the arguments.

    Args:
        mode: which shell it is, as a part of the hop id.

    Attributes:
        store: the rules.
        roll: draws a percent in [0, 100).
        deciding, finishing: the observers that want records of decisions, and of ends.
        observed: somebody is told of requests, or counts them.
        trusted_headers: what is taken away from peers that are not trusted, or None.
        started: the rules are followed.
        refusals: what was refused.
    """

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
        names = local_names(local)
        self._owned = not isinstance(rules, RuleStore)
        self.store = rules if isinstance(rules, RuleStore) else _store(rules, names, observers)
        self.roll = roll
        # Records that nobody wants are not made.
        without = Observer.finished, RequestCounters.finished
        self.deciding = [each for each in observers if getattr(type(each), "decided", None) is not Observer.decided]
        self.finishing = [each for each in observers if getattr(type(each), "finished", None) not in without]
        self._counts = [e.count for e in observers if isinstance(e, RequestCounters) and e not in self.finishing]
        self.observed = bool(self.deciding or self.finishing or self._counts)
        self._trusts = trusted_peers(trusted)
        self.trusted_headers = as_trusted_headers(trusted_headers, header_key_file)
        paths = [os.fspath(rules)] if isinstance(rules, str | os.PathLike) else []
        mark = via_token(hop_id or default_hop_id(mode, names, paths))
        self._hops = tuple(
            HopContext(mark, trusted, new_request_id, time, roll, shadow_writes) for trusted in (False, True)
        )
        self.refusals = RefusalCounters()
        self.started = False

    def start(self) -> None:
        """Load the rules and follow them; harmless when done already."""
        self.store.start()
        self.started = True

    def hop(self, head: RequestHead, settings: ModuleSettings) -> HopContext:
        """What the passage of a request means."""
        return self._hops[settings.trusted_hops > 0 or self._trusts(head.client)]

    def notify_decided(self, decision: Decision | None, head: RequestHead) -> float:
        """Tell observers of a decision; returns when that was, for `tell_end`."""
        since = perf_counter()
        if self.deciding:
            notify(self.deciding, Decided(head.method, head.path.decode("latin-1"), *labels_of(decision)))
        return since

    def notify_finished(
        self, decision: Decision | None, head: RequestHead, status: int | None, since: float, reason: str | None
    ) -> None:
        """Tell observers of the end of an exchange; see `Finished`."""
        seconds = perf_counter() - since
        for count in self._counts:
            count(decision, status, seconds)
        if self.finishing:
            path = head.path.decode("latin-1")
            record = Finished(head.method, path, status, seconds, *labels_of(decision), reason)
            notify(self.finishing, record)

    def notify_refused(self, method: str, path: str, status: int, reason: str | None) -> None:
        """Tell observers of a request that was not one to be decided about."""
        for count in self._counts:
            count(None, status, 0.0)
        notify(self.finishing, Finished(method, path, status, 0.0, reason=reason))

    def _stop(self) -> None:
        self.started = False
        if self._owned:
            self.store.stop()

    def _strip_untrusted(self, headers: RawHeaders, client: str | None) -> RawHeaders:
        """Headers without those that this peer may not send, for the rules and for whoever answers."""
        if self.trusted_headers is None:
            return headers
        return self.trusted_headers.strip_untrusted(headers, self._trusts(client), time())


def _store(
    rules: str | os.PathLike[str] | ConfigSource, local: frozenset[str], observers: Sequence[Observer]
) -> RuleStore:
    source = FileSource(rules) if isinstance(rules, str | os.PathLike) else rules
    return RuleStore(source, local=local, middleware=True, observers=observers)
