"""What both middlewares do for filters: the facts of a request, and who hears of the answers."""

from collections.abc import Callable, Iterable
from itertools import count
from time import perf_counter

from canary_mw.exceptions import UpstreamError
from canary_mw.forwarding.filters.calls import Asked, Facts
from canary_mw.forwarding.filters.guarding import paths_of
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import RequestHead
from canary_mw.middleware.options import Options
from canary_mw.middleware.release import ReleaseShell
from canary_mw.observability.figures.tallies import Tally
from canary_mw.observability.upstream_errors import UpstreamErrors
from canary_mw.routing.decided import Decision
from canary_mw.routing.person import Person
from canary_mw.routing.table import RouteTable


class FilterShell:
    """What a middleware tells an admission, and does with its answer.

    Args:
        wraps: see `MiddlewareBase`.
        unguarded: paths of local requests that are never asked about.
        guard_unmapped: see `Facts`.
        signed: whether comments in `via` are signed, so that they prove who has sent a request.
        client_of: the address of the client, as far as it is trusted.
    """

    def __init__(
        self,
        *,
        wraps: bool,
        unguarded: Iterable[str],
        guard_unmapped: bool,
        signed: bool,
        client_of: Callable[[RouteTable, RequestHead], str | None],
    ) -> None:
        self._wraps = wraps
        self._unguarded = paths_of(unguarded)
        self._guard_unmapped = guard_unmapped
        self._signed = signed
        self._client_of = client_of
        self._turns = count()

    def facts(
        self,
        table: RouteTable,
        head: RequestHead,
        decide: Callable[[RequestHead], Decision | None],
        hop: HopContext,
        person: Person,
        *,
        same_path: bool,
        websocket: bool = False,
    ) -> Facts:
        """What an admission needs to know about a request."""
        return Facts(
            decide,
            hop,
            self._wraps,
            self._turns.__next__,
            perf_counter,
            same_path,
            websocket,
            self._unguarded,
            self._guard_unmapped,
            person.is_sent if self._signed else None,
            self._client_of(table, head),
            table.asks_person,
        )


def filter_shell(options: Options, release: ReleaseShell, *, wraps: bool, signed: bool) -> FilterShell | None:
    """The shell of a middleware; None where no service is asked."""
    if not options.filters:
        return None
    return FilterShell(
        wraps=wraps,
        unguarded=options.unguarded,
        guard_unmapped=options.guard_unmapped,
        signed=signed,
        client_of=release.address_of,
    )


def answered(tally: Tally, head: RequestHead) -> None:
    """Count what was asked about a request."""
    asked: Asked | None = getattr(head, "asked", None)
    if asked is not None and asked.auth is not None:
        tally("auth", asked.auth_service, asked.auth)
        tally("auth_seconds", asked.auth_service, count=int(asked.auth_seconds * 1e6))
    if asked is not None and asked.rate_limit is not None:
        tally("rate_limit", asked.rate_limit)
        tally("rate_limit_seconds", count=int(asked.rate_limit_seconds * 1e6))


def note_failure(errors: UpstreamErrors, request: UpstreamRequest, error: UpstreamError) -> None:
    """A service of a filter has failed."""
    errors.failed(request.service, request.mapping, error)


class Known:
    """Who sends a request, as far as that is known.

    Attributes:
        person: with what the app has answered.
    """

    def __init__(self, person: Person) -> None:
        self.person = person


class OnceDrawn:
    """Draws an anonymous id once for both decisions about a request."""

    def __init__(self, draw: Callable[[], bytes]) -> None:
        self._draw = draw
        self._drawn: bytes | None = None

    def __call__(self) -> bytes:
        """The id."""
        if self._drawn is None:
            self._drawn = self._draw()
        return self._drawn


def drawing_once(person: Person) -> Person:
    """The same person for a second decision: an anonymous id that is drawn stays."""
    return person if person.new_id is None else person._replace(new_id=OnceDrawn(person.new_id))
