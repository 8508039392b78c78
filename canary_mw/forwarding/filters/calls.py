"""What an admission yields and gets: calls of services, and the beginning of a body."""

from collections.abc import Callable, Generator
from collections.abc import Mapping as Dict
from dataclasses import dataclass
from typing import Any, NamedTuple

from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Reply, Tries, UpstreamRequest
from canary_mw.http.messages import RawHeaders, RequestHead
from canary_mw.routing.decided import Decision
from canary_mw.rules.upstream import UpstreamOptions


class AskHttp(NamedTuple):
    """One request to a service over HTTP, sent once; an `HttpAnswer` is sent back.

    Attributes:
        body: whole, None for none.
    """

    request: UpstreamRequest
    body: bytes | None = None


class HttpAnswer(NamedTuple):
    """The answer to `AskHttp`; of the body no more than `MAX_ANSWER` bytes."""

    status: int
    headers: RawHeaders
    body: bytes = b""


class AskGrpc(NamedTuple):
    """One unary call of a service over gRPC; the answer is sent back as a dictionary of its fields.

    A status other than 0 is thrown in as `UpstreamError`, as what else fails.

    Attributes:
        service: normalised text of the service.
        rule: kind and name of the document, for the log.
        method: path of the method, "/envoy.service.auth.v3.Authorization/Check".
        message: fields of the request by their names in the protocol; bytes and numbers as they are.
        timeout: seconds for connect, send and answer together, None for no limit.
        trace: is told of the call, None where it is not traced.
    """

    service: str
    rule: str
    method: str
    message: Dict[str, Any]
    timeout: float | None
    connect_timeout: float
    options: UpstreamOptions
    trace: Tries | None = None


class WantBody(NamedTuple):
    """The first bytes of the request's body are needed; a `BodyStart` is sent back. The body stays readable.

    Attributes:
        limit: how many.
    """

    limit: int


class Settle(NamedTuple):
    """The app has to be asked about who sends a request, as services have changed it; the decision is sent back."""

    head: RequestHead


class BodyStart(NamedTuple):
    """The beginning of a body.

    Attributes:
        data: at most as many bytes as were asked for.
        more: whether the body is longer.
    """

    data: bytes
    more: bool


class Admitted(NamedTuple):
    """A request that may go on.

    Attributes:
        decision: made again where a service has changed the request.
        head: as the services have changed it.
        response_headers: added to its answer.
    """

    decision: Decision | None
    head: RequestHead
    response_headers: tuple[tuple[bytes, bytes], ...] = ()


Call = AskHttp | AskGrpc | WantBody
Wanted = Call | Settle
Given = HttpAnswer | Dict[str, Any] | BodyStart | Decision | None
Admission = Generator[Wanted, Any, Admitted | Reply]
# Bytes of the body of a service's answer that are read.
MAX_ANSWER = 1 << 20


@dataclass(slots=True)
class Asked:
    """What was asked about one request, for those who tell of it.

    Attributes:
        auth: allowed, denied, error or failed_open; None where nobody was asked.
        auth_seconds: how long that took.
        response_headers: what the AuthService adds to the answer.
        rate_limit: ok, over_limit or error; None where nobody was asked.
    """

    auth: str | None = None
    auth_service: str = ""
    auth_seconds: float = 0.0
    response_headers: tuple[tuple[bytes, bytes], ...] = ()
    rate_limit: str | None = None
    rate_limit_seconds: float = 0.0


class Facts(NamedTuple):
    """What an admission needs to know besides the rules.

    Attributes:
        decide: the decision for a changed head, with the roll and the person of the first one.
        hop: of the request.
        wraps: a wrapped app answers what is local, and what no Mapping takes.
        same_path: the app routes by the path that the rules see, without other segments or escapes.
        websocket: the request is the handshake of one.
        unguarded: paths of local requests that are never asked about.
        guard_unmapped: local requests that no Mapping takes are asked about.
        is_sent: whether a canary-mw of this deployment has sent the request to a service, by a signature in `via`.
        turn: numbers that tell which of several services is next.
        clock: monotonic seconds.
        client: address of the client, as far as it is trusted.
        asks_person: a release may ask the app; before that nobody is drawn by its answers.
    """

    decide: Callable[[RequestHead], Decision | None]
    hop: HopContext
    wraps: bool
    turn: Callable[[], int]
    clock: Callable[[], float]
    same_path: bool = True
    websocket: bool = False
    unguarded: frozenset[bytes] = frozenset()
    guard_unmapped: bool = True
    is_sent: Callable[[RequestHead, bytes], bool] | None = None
    client: str | None = None
    asks_person: bool = False
