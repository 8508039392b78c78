"""What the ASGI and the WSGI middleware share: the rule store, trusted peers, hop contexts and observers."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakMethod

from canary_mw.control.endpoints import discovery_of, endpoints_to_find
from canary_mw.control.sources.base import ConfigSource
from canary_mw.control.sources.named import local_names_in, source_of
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import ConfigError
from canary_mw.forwarding.hop import HopContext
from canary_mw.host import HostLogger, speak
from canary_mw.http.messages import RawHeaders, RequestHead
from canary_mw.locks import check_threads
from canary_mw.middleware.announcement import announce, warn_of_missing
from canary_mw.middleware.audience.answers import Answers
from canary_mw.middleware.filters.shell import filter_shell
from canary_mw.middleware.identity import default_hop_id, local_names, new_request_id, via_token
from canary_mw.middleware.observed_requests import ObservedRequests
from canary_mw.middleware.options import Arguments, options_of, unused_variables
from canary_mw.middleware.release import ReleaseShell
from canary_mw.middleware.rollouts import rollouts_for
from canary_mw.middleware.settings import ENABLED, MiddlewareSettings, is_enabled, variable
from canary_mw.middleware.trust import trusted_headers as as_trusted_headers
from canary_mw.middleware.trust import trusted_peers
from canary_mw.observability.counters import RefusalCounters
from canary_mw.observability.observers import Observer
from canary_mw.observability.source_status import SourceStatus
from canary_mw.observability.upstream_errors import UpstreamErrors
from canary_mw.routing import decision as routing_decision
from canary_mw.routing.table import RouteTable
from canary_mw.rules.module import ModuleSettings
from canary_mw.rules.service import Service
from canary_mw.run_folder.opened import run_folder
from canary_mw.upstreams.health import EndpointStatus

if TYPE_CHECKING:
    from canary_mw.middleware.admin_port import AdminPort

logger = HostLogger(logging.getLogger("canary_mw.middleware"))

Rules = str | os.PathLike[str] | ConfigSource | RuleStore


class AnyUpstreams(Protocol):
    """What both kinds of upstreams count."""

    errors: UpstreamErrors

    def place(self, service: Service) -> str:
        """See `Upstreams.place`."""

    def is_replaced(self, service: Service) -> bool:
        """See `Upstreams.is_replaced`."""

    def ejections(self) -> dict[str, int]:
        """See `Upstreams.ejections`."""

    def endpoint_statuses(self) -> list[EndpointStatus]:
        """See `Upstreams.endpoint_statuses`."""


class MiddlewareBase(ObservedRequests):
    """Base of the middlewares; see `CanaryMiddleware` for the arguments.

    Args:
        mode: "asgi" or "wsgi"; a part of the hop id.

    Attributes:
        store: the rules.
        options: the arguments, and the settings in place of those that are not given.
        roll: draws a percent in [0, 100).
        trusted_headers: the headers that are removed from requests of untrusted peers, or None.
        discovery: the endpoints of services whose Mappings ask for them.
        rollouts: drives the releases that raise their own weight.
        release: what releases need of a middleware.
        answers: judges what the app answers about who sends a request.
        filters: what services of filters need of a middleware; None where they are not asked.
        is_trusted_peer, hops: tells which peers are trusted; the hop contexts of requests of the others, and of those.
        person: what every decision is told; with header keys, comments in `via` need a signature.
        started: whether the rule store is started.
        enabled: whether the rules count. Without them the wrapped app gets every request.
        refusals: counts the refused requests.
    """

    # Whether the wrapped app is the local service. A proxy wraps no service: it forwards local decisions too.
    wraps = True
    # An attribute of the class, so that `canary_mw.testing` can replace it for all middlewares of the process at once.
    decide = staticmethod(routing_decision.decide)
    upstreams: AnyUpstreams
    shadows: Any
    nets: Any
    admin_port: "AdminPort | None" = None
    # What was wrong with an argument, where `__init__` did not raise it.
    _config_error: ConfigError | None = None

    def __init__(
        self,
        mode: str,
        rules: Rules | None,
        local: str | Iterable[str],
        *,
        roll: Callable[[], float],
        observers: Sequence[Observer],
        arguments: Arguments,
    ) -> None:
        check_threads()
        names = local_names(local := (local,) if isinstance(local, str) else tuple(local))
        self.enabled = not self.wraps or is_enabled(os.environ)
        if not self.enabled:
            rules = StaticSource("")
        settings = self._read_settings() if self.enabled else MiddlewareSettings()
        options = self.options = options_of(arguments, settings, local)
        if self.wraps and options.admin_port:
            self.admin_port = self._make_admin_port(settings, arguments)
            observers = self.admin_port.with_metrics(observers)
        self._owns_store = not isinstance(rules, RuleStore)
        self.store = (
            rules if isinstance(rules, RuleStore) else _store(rules, names, observers, settings, options.run_dir)
        )
        zone, may_exec = settings.zone or "", not self.wraps
        paths = settings.rules if rules is None else [os.fspath(rules)] if isinstance(rules, str | os.PathLike) else []
        hop_id = options.hop_id or default_hop_id(mode, names, paths)
        self.rollouts = rollouts_for(self.store, options, WeakMethod(self.counters), hop_id, wraps=self.wraps)
        self.discovery = discovery_of(self.store.source, settings.endpoints, zone, may_exec=may_exec)
        self.roll = roll
        self._set_observers(observers, tracing=settings.tracing)
        self.answers = Answers(self.tally)
        for counters in self._counting:
            counters.share(partial(run_folder, options.run_dir))
        self.is_trusted_peer = trusted_peers(options.trusted)
        self.trusted_headers = as_trusted_headers(
            options.trusted_headers, options.header_key_file, needs_keys=self.enabled
        )
        keys = self.trusted_headers.keys if self.trusted_headers else ()
        self.release = ReleaseShell(self.is_trusted_peer, keys, self.tally)
        self.person = self.release.person
        self.filters = filter_shell(options, self.release, wraps=self.wraps, signed=bool(keys))
        self.hops = _hops(via_token(hop_id), roll, options.shadow_writes, keys[0] if keys else None)
        self.refusals = RefusalCounters(tally=self.tally)
        # What is given to the proxy is made of its settings.
        self._unused = unused_variables(arguments, rules, os.environ) if self.wraps else []
        self._prepare_start()

    def _make_admin_port(self, settings: MiddlewareSettings, arguments: Arguments) -> "AdminPort":
        # uvicorn and the metrics are loaded where somebody asks for them.
        from canary_mw.admin.commands.tokens import checked
        from canary_mw.middleware.admin_port import AdminPort

        if self.options.admin_token_file:
            checked(self.options.admin_token_file)
        return AdminPort(self, settings, arguments, self.options)

    def start(self) -> None:
        """Load the rules and follow their changes; does nothing when started already.

        Raises:
            ConfigError: the threads of the process were patched since the import, so that nothing can be followed. Or
                the rules are in error, with `strict`, or an argument was not valid.
        """
        if self._config_error is not None:
            raise self._config_error.with_traceback(None)
        check_threads()
        speak()
        for counters in self._counting:
            counters.start()
            self.store.add_counters(counters, counters.tick)
        if self.enabled:
            self._start_rules()
        else:
            logger.warning("%s is 0: no rules are read, and the app answers every request", ENABLED)
        self.started = True
        self.store.tell(self._find_services)
        self._find_services(self.store.table)
        if self.admin_port is not None:
            self.admin_port.open()
        if self.enabled and self._is_first_start():
            options = self.options
            filters = {"asks": options.filters, "guard_unmapped": options.guard_unmapped}
            announce(self.store, options.upstreams, self.upstreams.place, self._unused, **filters)

    def _start_rules(self) -> None:
        if self.options.strict and self.store.error is not None:
            self.store.reload()
        if self.options.state or self._counting:
            # Else nobody can abort a release without steps.
            self.rollouts.watch()
        self.store.start()
        self._count_for_releases(self.store.table)
        self.store.tell(self._count_for_releases)
        self._start_exports()
        self.answers.warn_of_unknown(self.store.table)
        self.store.tell(self.answers.warn_of_unknown)
        self._start_lanes()
        self.rollouts.start()
        if self.options.strict and self.store.error is not None:
            self._stop()
            raise self.store.error.with_traceback(None)

    def _find_services(self, _: RouteTable) -> None:
        """Watch the Services that the table in force asks the endpoints of."""
        if self.started:
            self.discovery.follow(
                lambda: endpoints_to_find(self.store.table, wraps=self.wraps, is_replaced=self.upstreams.is_replaced)
            )

    def _check_rules(self) -> None:
        """Load the rules without following them; raises what is wrong with them."""
        self.store.reload()
        if self.store.error is not None:
            raise self.store.error

    def ejections(self) -> dict[str, int]:
        """How often endpoints were ejected; see `Upstreams.ejections`."""
        return self.upstreams.ejections()

    def endpoint_statuses(self) -> list[EndpointStatus]:
        """What is known of the addresses of services; any thread may call it."""
        return self.upstreams.endpoint_statuses()

    def upstream_errors(self) -> dict[tuple[str, str], int]:
        """How many attempts at upstreams failed, by service and reason; see `UpstreamErrors.counts`."""
        return self.upstreams.errors.counts()

    def _read_settings(self) -> MiddlewareSettings:
        return MiddlewareSettings.from_environ()

    def hop(self, head: RequestHead, settings: ModuleSettings) -> HopContext:
        """The hop context of a request: that of a trusted peer, or that of an untrusted one."""
        return self.hops[settings.trusted_hops > 0 or self.is_trusted_peer(head.client)]

    def source_status(self) -> list[SourceStatus]:
        """How it goes with what is watched over a network: rules, and endpoints."""
        return [*self.store.source_status(), *self.discovery.status()]

    def _is_first_start(self) -> bool:
        """True once after `_prepare_start`, also where several threads start at the same time."""
        try:
            return self._unannounced.pop()
        except IndexError:
            return False

    def _prepare_start(self) -> None:
        self.started = False
        self._unannounced = [True]

    def _stop(self) -> None:
        self._prepare_start()
        self.discovery.stop()
        if self.admin_port is not None:
            self.admin_port.close()
        self._close_exports()
        if self._owns_store:
            # The thread of the rules may begin what drives the releases.
            self.store.stop()
            self.rollouts.stop()

    def _strip_untrusted(self, headers: RawHeaders, client: str | None, table: RouteTable | None = None) -> RawHeaders:
        """The headers without those that this peer may not send; rules, app and upstream see only these.

        Args:
            table: its releases may be told of lanes; None where it has none.
        """
        if table is not None:
            headers = self.release.without_lanes(table, headers, client)
        if self.trusted_headers is None:
            return headers
        return self.trusted_headers.strip_untrusted(headers, self.is_trusted_peer(client), time())


def _hops(
    via: bytes, roll: Callable[[], float], shadow_writes: bool, key: bytes | None
) -> tuple[HopContext, HopContext]:
    """The hop contexts of requests of peers that are not trusted, and of those that are."""
    first, second = (HopContext(via, each, new_request_id, time, roll, shadow_writes, key) for each in (False, True))
    return first, second


def _store(
    rules: str | os.PathLike[str] | ConfigSource | None,
    local: frozenset[str],
    observers: Sequence[Observer],
    settings: MiddlewareSettings,
    run_dir: str | None,
) -> RuleStore:
    if rules is None and not settings.rules:
        raise ConfigError("no rules", hint=f"give rules= a path, or set {variable('rules')}")
    if rules is None or isinstance(rules, str | os.PathLike):
        given = settings.rules if rules is None else [rules]
        rules = source_of(given, **settings.of_sources, folder=partial(run_folder, run_dir))
    speak()
    warn_of_missing(rules)
    names = local_names_in(rules, local)
    return RuleStore(rules, local=names, middleware=True, ambassador_id=settings.ambassador_id, observers=observers)
