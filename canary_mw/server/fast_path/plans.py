"""What is worked out once for each Mapping: the parts of its requests that do not depend on the request."""

from canary_mw.exceptions import BadTarget
from canary_mw.forwarding.headers import DROPPED, DROPPED_TRUSTED, Headers, apply_header_changes
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.requests import with_lane
from canary_mw.forwarding.rewrite import rewrite_path
from canary_mw.http.framing import well_formed
from canary_mw.http.lanes import Lane, sent_value
from canary_mw.http.messages import RequestHead, ResponseHead
from canary_mw.http.target import TARGET_BYTES
from canary_mw.routing.assignment import Assigned
from canary_mw.routing.decided import Decision
from canary_mw.routing.person import Person
from canary_mw.rules.header_templates import TemplateContext
from canary_mw.rules.mapping import HeaderChange, Mapping
from canary_mw.rules.release import STABLE
from canary_mw.upstreams.loop_states import route_key

_join = b": ".join


class Sender:
    """What is known of the client at the other end of a connection.

    Attributes:
        address, scheme: as they are told to upstreams.
        forwarded: the lines that tell of them, and the start of the one that tells of the Host.
        trusted: it is a trusted peer.
        person: as releases see it; None where each request has to be looked at.
    """

    __slots__ = ("address", "forwarded", "person", "scheme", "trusted")

    def __init__(self, address: str | None, scheme: str, *, trusted: bool, person: Person | None) -> None:
        self.address = (address or "unknown").encode("latin-1")
        self.scheme = scheme.encode()
        self.forwarded = b"x-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nx-forwarded-host: " % (
            self.address,
            self.scheme,
        )
        self.trusted = trusted
        self.person = person


class Plan:
    """How the requests of one Mapping are sent.

    Args:
        via: the via token of this deployment.

    Attributes:
        mapping: is kept, so that no other one has its identity.
        simple: whether the fast path takes its requests.
        changes_answer: whether headers of responses are changed.
        service, key: of its upstream; see `route_key`.
    """

    __slots__ = (
        "_changes_request",
        "_end",
        "_host",
        "_keeps_path",
        "_lanes",
        "_prefix_length",
        "_rewrite",
        "changes_answer",
        "key",
        "mapping",
        "service",
        "simple",
    )

    def __init__(self, mapping: Mapping, via: bytes) -> None:
        self.mapping = mapping
        self.service = mapping.service.text
        self.key = route_key(self.service, mapping.options)
        self._changes_request = bool(mapping.add_request_headers or mapping.remove_request_headers)
        self.changes_answer = bool(mapping.add_response_headers or mapping.remove_response_headers)
        self._end = b"via: 1.1 %b %b\r\n\r\n" % (via, mapping.via_comment)
        self._lanes: dict[tuple[str, str | None], bytes] = {}
        self._host: bytes | None = None
        if mapping.host_rewrite or mapping.auto_host_rewrite:
            self._host = (mapping.host_rewrite or mapping.service.origin.host).encode()
        rewrite = (mapping.rewrite or "").encode()
        self._keeps_path = not rewrite and mapping.regex_rewrite is None
        by_prefix = mapping.regex_rewrite is None and mapping.prefix_kind == "plain" and rewrite[:1] == b"/"
        # None where `rewrite_path` has to be asked.
        self._rewrite = rewrite if by_prefix and not rewrite.translate(None, TARGET_BYTES) else None
        self._prefix_length = len(mapping.prefix_bytes)
        self.simple = mapping.fast_path_ok and mapping.cors is None and self._is_constant()

    def _is_constant(self) -> bool:
        """Whether what is put into each request and response is the same for all of them, and can be sent."""
        mapping = self.mapping
        constant = all(map(_is_constant, (*mapping.add_request_headers, *mapping.add_response_headers)))
        return constant and (self._host is None or well_formed((b"host",), (self._host,)))

    def target(self, path: bytes) -> bytes:
        """The path for the upstream.

        Raises:
            ClientError: it cannot be sent.
        """
        if self._keeps_path:
            return path
        rewrite = self._rewrite
        if rewrite is not None:
            new = rewrite + path[self._prefix_length :]
            if b"/." not in new:
                return new
        new = rewrite_path(self.mapping, path)
        if new.translate(None, TARGET_BYTES):
            raise BadTarget("the rewritten path holds a byte that a target may not hold")
        return new

    def head(
        self, request: RequestHead, target: bytes, sender: Sender, hop: HopContext, decision: Decision
    ) -> tuple[bytes, bytes | None]:
        """The head for the upstream, as `upstream_request` and `encode_head` make it, and its request id.

        Args:
            request: one that `plain_request` has taken, so that its bytes need no second look. It holds no lanes.
        """
        fields = request.headers_by_name.copy()
        host = fields.pop(b"host")
        lane, assigned = decision.lane, decision.release
        if hop.trusted or self._changes_request or (lane is not None and lane.baggage):
            return self._changed_head(request, fields, host, target, sender, hop, decision)
        if not DROPPED.isdisjoint(fields):
            _drop(fields, DROPPED)
        request_id = fields.get(b"x-request-id")
        if request_id is not None and not self.mapping.keep_request_id:
            del fields[b"x-request-id"]
            request_id = None
        lines = [self._first(request, target, host), *map(_join, fields.items()), sender.forwarded + host]
        if request_id is None:
            request_id = hop.new_id()
            lines.append(b"x-request-id: " + request_id)
        if lane is not None and assigned is not None and (value := self._lane_value(lane, assigned)):
            lines.append(lane.header + b": " + value)
        lines.append(self._end)
        return b"\r\n".join(lines), request_id

    def _first(self, request: RequestHead, target: bytes, host: bytes) -> bytes:
        return b"%b %b HTTP/1.1\r\nhost: %b" % (request.method.encode(), target, self._host or host)

    def _changed_head(
        self,
        request: RequestHead,
        fields: dict[bytes, bytes],
        host: bytes,
        target: bytes,
        sender: Sender,
        hop: HopContext,
        decision: Decision,
    ) -> tuple[bytes, bytes | None]:
        """The same for a trusted peer, or where headers are changed."""
        mapping = self.mapping
        if hop.trusted:
            _continue_forwarding(fields, host, sender)
        else:
            _drop(fields, DROPPED)
            fields[b"x-forwarded-for"] = sender.address
            fields[b"x-forwarded-proto"] = sender.scheme
            fields[b"x-forwarded-host"] = host
        if b"x-request-id" not in fields or not mapping.keep_request_id:
            fields.pop(b"x-request-id", None)
            fields[b"x-request-id"] = hop.new_id()
        headers = [*fields.items()]
        if self._changes_request:
            context = TemplateContext(request, None, 0.0)
            add = mapping.add_request_headers
            headers = apply_header_changes(headers, mapping.remove_request_headers, add, context)
        if decision.lane is not None and decision.release is not None:
            headers = with_lane(headers, decision.lane, decision.release, mapping)
        lines = (self._first(request, target, host), *map(_join, headers), self._end)
        return b"\r\n".join(lines), dict(headers).get(b"x-request-id")

    def _lane_value(self, lane: Lane, assigned: Assigned) -> bytes:
        """What a request without lanes tells of a decision; empty for nothing."""
        key = assigned.name, assigned.variant
        found = self._lanes.get(key)
        if found is None:
            variant = (assigned.variant or STABLE).encode()
            found = self._lanes[key] = sent_value(lane, b"", variant, STABLE.encode())
        return found

    def answer_headers(self, status: int, headers: Headers, request: RequestHead) -> Headers:
        """The headers of a response after the changes of the Mapping, as `response_head` makes them."""
        mapping, context = self.mapping, TemplateContext(request, ResponseHead(status, headers), 0.0)
        return apply_header_changes(headers, mapping.remove_response_headers, mapping.add_response_headers, context)


def _continue_forwarding(fields: dict[bytes, bytes], host: bytes, sender: Sender) -> None:
    """Continue the X-Forwarded-* of a trusted peer."""
    before = fields.get(b"x-forwarded-for")
    _drop(fields, DROPPED_TRUSTED)
    fields[b"x-forwarded-for"] = sender.address if before is None else b"%b, %b" % (before, sender.address)
    fields.setdefault(b"x-forwarded-proto", sender.scheme)
    fields.setdefault(b"x-forwarded-host", host)


def _drop(fields: dict[bytes, bytes], names: frozenset[bytes]) -> None:
    for name in names.intersection(fields):
        del fields[name]


def _is_constant(change: HeaderChange) -> bool:
    return isinstance(change.value, bytes) and well_formed((change.name,), (change.value,))
