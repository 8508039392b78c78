"""Calls over gRPC as requests to an upstream, and their answers as dictionaries."""

from collections.abc import Mapping as Dict
from typing import Any, NamedTuple

from canary_mw.exceptions import UpstreamProtocolError
from canary_mw.forwarding.filters import auth_grpc, rate_limit
from canary_mw.forwarding.filters.calls import AskGrpc, AskHttp, HttpAnswer
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.forwarding.protobuf.auth import CHECK_REQUEST, CHECK_RESPONSE
from canary_mw.forwarding.protobuf.codec import Table, decode, encode
from canary_mw.forwarding.protobuf.rate_limit import RATE_LIMIT_REQUEST, RATE_LIMIT_RESPONSE
from canary_mw.http.messages import BodyFraming
from canary_mw.rules.upstream import EndpointOptions


class _Method(NamedTuple):
    request: Table
    answer: Table


_METHODS = {
    auth_grpc.METHOD: _Method(CHECK_REQUEST, CHECK_RESPONSE),
    rate_limit.METHOD: _Method(RATE_LIMIT_REQUEST, RATE_LIMIT_RESPONSE),
}
# By their numbers.
_STATUSES = (
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED"
    " RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS"
    " UNAUTHENTICATED"
).split()


def request_of(ask: AskGrpc) -> AskHttp:
    """The request of a call; clients of upstreams know it for one by `EndpointOptions.grpc`."""
    message = encode(_METHODS[ask.method].request, ask.message)
    endpoints = (ask.options.endpoints or EndpointOptions())._replace(grpc=True)
    request = UpstreamRequest(
        ask.service,
        "POST",
        ask.method.encode(),
        [],
        BodyFraming(len(message)),
        ask.timeout,
        ask.connect_timeout,
        # A check may be repeated, so a connection that was closed meanwhile is replaced.
        True,
        ask.options._replace(endpoints=endpoints),
        mapping=ask.rule,
        trace=ask.trace,
    )
    return AskHttp(request, message)


def fields_of(ask: AskGrpc, answer: HttpAnswer) -> Dict[str, Any]:
    """The fields of an answer.

    Raises:
        UpstreamProtocolError: the service has answered with an error, or with what is no message.
    """
    headers = dict(answer.headers)
    status = headers.get(b"grpc-status", b"").decode("latin-1")
    if status != "0":
        name = _STATUSES[int(status)] if status.isdigit() and int(status) < len(_STATUSES) else status
        text = headers.get(b"grpc-message", b"").decode("latin-1")
        raise UpstreamProtocolError(f"{ask.service}: answered with the status {name} ({text})", sent=True)
    try:
        return decode(_METHODS[ask.method].answer, answer.body)
    except ValueError as exc:
        raise UpstreamProtocolError(f"{ask.service}: answered with what is no message: {exc}", sent=True) from exc


def as_it_is(answer: HttpAnswer) -> HttpAnswer:
    """What is read in an answer over HTTP: all of it.

    Raises:
        UpstreamProtocolError: the service says that it has failed, which the log tells as any failure.
    """
    if answer.status >= 500:
        raise UpstreamProtocolError(f"answered with the status {answer.status}", sent=True)
    return answer
