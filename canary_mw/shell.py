"""What both shells do alike: follow the rules, know whom to believe, mark what passes, and tell who watches."""

import os
from collections.abc import Callable, Iterable, Sequence
from time import time
from typing import Any

from .forwarding import Hop
from .group import Decision
from .hops import default_hop_id, hop_mark, local_names, new_request_id, trust
from .hops import trusted_headers as as_trusted_headers
from .messages import RawHeaders, RequestHead
from .module import Globals
from .observers import DoorCounts, Observer
from .sources import ConfigSource, FileSource
from .store import RuleStore

Rules = str | os.PathLike[str] | ConfigSource | RuleStore


class Shell:
    """Base of the middlewares; see `CanaryMiddleware` for the arguments.

    Args:
        mode: which shell it is, as a part of the hop id.

    Attributes:
        store: the rules.
        roll: draws a percent in [0, 100).
        deciding, finishing: the observers that want to be told of decisions, and of ends.
        observed: there is one.
        trusted_headers: what is taken away from peers that are not trusted, or None.
        started: the rules are followed.
        door: what was refused.
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
        self.deciding = [each for each in observers if getattr(type(each), "decided", None) is not Observer.decided]
        self.finishing = [each for each in observers if getattr(type(each), "finished", None) is not Observer.finished]
        self.observed = bool(self.deciding or self.finishing)
        self._trusts = trust(trusted)
        self.trusted_headers = as_trusted_headers(trusted_headers, header_key_file)
        paths = [os.fspath(rules)] if isinstance(rules, str | os.PathLike) else []
        mark = hop_mark(hop_id or default_hop_id(mode, names, paths))
        self._hops = tuple(Hop(mark, trusted, new_request_id, time, roll, shadow_writes) for trusted in (False, True))
        self.door = DoorCounts()
        self.started = False

    def start(self) -> None:
        """Load the rules and follow them; harmless when done already."""
        self.store.start()
        self.started = True

    def hop(self, head: RequestHead, settings: Globals) -> Hop:
        """What the passage of a request means."""
        return self._hops[settings.trusted_hops > 0 or self._trusts(head.client)]

    def _stop(self) -> None:
        self.started = False
        if self._owned:
            self.store.stop()

    def _believed(self, headers: RawHeaders, client: str | None) -> RawHeaders:
        """Headers without those that this peer may not send, for the rules and for whoever answers."""
        if self.trusted_headers is None:
            return headers
        return self.trusted_headers.believed(headers, self._trusts(client), time())


def _store(
    rules: str | os.PathLike[str] | ConfigSource, local: frozenset[str], observers: Sequence[Observer]
) -> RuleStore:
    source = FileSource(rules) if isinstance(rules, str | os.PathLike) else rules
    return RuleStore(source, local=local, middleware=True, observers=observers)


def record_of(decision: Decision | None, head: RequestHead) -> dict[str, Any]:
    """What observers are told of a request."""
    request: dict[str, Any] = {"method": head.method, "path": head.path.decode("latin-1")}
    if decision is not None:
        mapping = decision.mapping
        request |= {"mapping": mapping.name, "service": mapping.service.text, "variant": decision.variant}
    return request
