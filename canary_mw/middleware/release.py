"""What a decision of a release asks of a middleware, and what its answers get."""

from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from functools import partial
from secrets import token_bytes
from time import time

from canary_mw.forwarding.hop import is_sent_and_signed
from canary_mw.forwarding.release_headers import DAY, ReleaseHeaders, may_get_cookie
from canary_mw.forwarding.trusted_headers import is_signed, sign_cookie, verify_cookie
from canary_mw.http.lanes import BAGGAGE, has_lanes, without_lanes
from canary_mw.http.messages import RawHeaders, RequestHead
from canary_mw.observability.figures.tallies import Tally, no_tally
from canary_mw.propagate.hosts import told
from canary_mw.routing.choice import lane_variant
from canary_mw.routing.decided import Decision
from canary_mw.routing.person import NOBODY, Person
from canary_mw.routing.table import RouteTable
from canary_mw.rules.release import STABLE

# A session that lasts longer than this is not kept in a variant of weight 0.
_DRAIN_LIMIT = 30 * DAY
# `Person.trusted`, and what comes behind `Person.client`, which is next to it.
_TRUSTED, _BEHIND = Person._fields.index("trusted"), Person._fields.index("client") + 1
_person = partial(tuple.__new__, Person)


class ReleaseShell:
    """What both middlewares do for releases.

    Args:
        is_trusted_peer: whether an address is that of a trusted peer.
        keys: the header keys.
        tally: counts the lanes of requests.

    Attributes:
        person: what is known of everybody.
    """

    def __init__(
        self, is_trusted_peer: Callable[[str | None], bool], keys: Sequence[bytes], tally: Tally = no_tally
    ) -> None:
        self._tally = tally
        self._is_trusted_peer = is_trusted_peer
        self._keys = tuple(keys)
        self.person = NOBODY._replace(new_id=new_anonymous_id)
        if keys:
            self.person = self.person._replace(
                is_sent=partial(is_sent_and_signed, keys), is_signed=self._is_signed, verify_cookie=self._verify_cookie
            )

    def person_of(self, table: RouteTable, head: RequestHead) -> Person:
        """Who sends a request."""
        if not table.releases:
            return self.person
        trusted = self._is_trusted_peer(head.client)
        known = self.person
        # Without `_replace`, which takes each field by its name.
        return _person((*known[:_TRUSTED], trusted, self.client_of(table, head, trusted), *known[_BEHIND:]))

    def address_of(self, table: RouteTable, head: RequestHead) -> str | None:
        """The address of the client of a request, as `person_of` has it."""
        return self.client_of(table, head, self._is_trusted_peer(head.client))

    def without_lanes(self, table: RouteTable, headers: RawHeaders, client: str | None) -> RawHeaders:
        """The headers without lanes of other canary-mw that this peer may not send, as nobody behind may believe them.

        Args:
            client: the address of the peer.
        """
        lanes = table.lane_headers | told.headers if told.on else table.lane_headers
        if not lanes or not has_lanes(headers, lanes) or self._is_trusted_peer(client):
            return headers
        names = (*lanes, BAGGAGE) if self._keys else ()
        signed = frozenset(name for name in names if is_signed(self._keys, headers, name, time()))
        kept = without_lanes(headers, lanes, signed)
        if kept != list(headers):
            self._tally("lanes", "untrusted")
        return kept

    def client_of(self, table: RouteTable, head: RequestHead, trusted: bool) -> str | None:
        """The address of the client: what the trusted proxies in front have seen."""
        hops = table.settings.trusted_hops
        if not hops and not trusted:
            return head.client
        line = b",".join(value for name, value in head.headers if name == b"x-forwarded-for").decode("latin-1")
        entries = [entry.strip() for entry in line.split(",") if entry.strip()]
        if hops:
            return entries[-hops] if len(entries) >= hops else head.client
        return next((each for each in reversed(entries) if not self._is_trusted_peer(each)), head.client)

    def headers(self, table: RouteTable, decision: Decision | None, head: RequestHead) -> ReleaseHeaders | None:
        """What the answer to a request gets; None where no release has decided."""
        assigned = decision.release if decision is not None else None
        release = table.releases.get(assigned.name) if assigned is not None else None
        if assigned is None or release is None:
            return None
        if assigned.reason == "lane":
            named = lane_variant(head, release.lane, self.person._replace(trusted=True))
            self._tally("lanes", "obeyed" if named == (assigned.variant or STABLE).encode() else "unknown")
        # Only cookies differ by it.
        secure = may_get_cookie(release.document, assigned) and self._is_secure(head)
        return ReleaseHeaders(release.document, assigned, head, secure, time(), self._sign_cookie)

    def _is_secure(self, head: RequestHead) -> bool:
        if head.scheme in ("https", "wss"):
            return True
        return head.header(b"x-forwarded-proto") == b"https" and self._is_trusted_peer(head.client)

    def _is_signed(self, head: RequestHead, name: bytes) -> bool:
        return is_signed(self._keys, head.headers, name, time())

    def _verify_cookie(self, name: bytes, value: bytes) -> bytes | None:
        return verify_cookie(self._keys, name, value, time())

    def _sign_cookie(self, name: bytes, value: bytes, now: float) -> bytes:
        return sign_cookie(self._keys[0], name, value, int(now) + _DRAIN_LIMIT) if self._keys else value


def new_anonymous_id() -> bytes:
    """128 random bits as 22 characters."""
    return urlsafe_b64encode(token_bytes(16))[:22]
