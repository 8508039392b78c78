"""AuthService over gRPC: the message that it gets, and what its answer means (Envoy's ext_authz)."""

import re
from collections.abc import Iterable
from collections.abc import Mapping as Dict
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_plus, unquote_to_bytes

from canary_mw.exceptions import ClientError, UpstreamProtocolError
from canary_mw.forwarding.filters.auth_http import FORWARDED, PARTIAL_BODY, joined, refusal_reply, unnominated
from canary_mw.forwarding.filters.calls import AskGrpc, BodyStart, Facts
from canary_mw.forwarding.headers import request_headers
from canary_mw.forwarding.messages import Reply
from canary_mw.http.framing import well_formed
from canary_mw.http.headers import fold_underscores
from canary_mw.http.messages import RequestHead
from canary_mw.http.target import check_query, normalize_path
from canary_mw.routing.governed import APP
from canary_mw.rules.filters.auth import NEVER_SET, AuthPolicy
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.service import Service

Headers = tuple[tuple[bytes, bytes], ...]

METHOD = "/envoy.service.auth.v3.Authorization/Check"
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_AUTHORITY = frozenset((b"host", b":authority"))


class Verdict(NamedTuple):
    """What a service has said about a request.

    Attributes:
        outcome: the request as it goes on, or the reply to the client.
        response_headers: added to the answer of a request that goes on.
        failed: the service says that it has failed; the reply is for a request that does not go on then.
    """

    outcome: RequestHead | Reply
    response_headers: Headers = ()
    failed: bool = False


def identified(head: RequestHead, facts: Facts) -> RequestHead:
    """The request with an id: the service is told of it, and the upstream and the log then have the same one."""
    if head.has(b"x-request-id"):
        return head
    return head.replace(headers=[*head.headers, (b"x-request-id", facts.hop.new_id())])


def ask(
    policy: AuthPolicy, service: Service, rule: Mapping | None, head: RequestHead, facts: Facts, body: BodyStart | None
) -> AskGrpc:
    """The call about a request.

    Args:
        rule: the Mapping whose attributes count for the request.
        body: the beginning of its body, None for no body.
    """
    now = facts.hop.now()
    time = {"seconds": int(now), "nanos": int(now % 1 * 1e9)}
    attributes = {
        "source": _peer(facts.client or head.client, head.client_port),
        "destination": _peer(None, head.server_port),
        "request": {"time": time, "http": _http(head, facts, body if body is not None and body.data else None)},
        "context_extensions": dict(rule.context_extensions) if rule is not None else {},
        "metadata_context": {},
        "route_metadata_context": {},
    }
    return AskGrpc(
        service.text,
        f"AuthService {policy.name}",
        METHOD,
        {"attributes": attributes},
        policy.timeout,
        policy.connect_timeout,
        policy.options,
    )


def _peer(address: str | None, port: int) -> dict[str, Any]:
    return {"address": {"socket_address": {"address": address, "port_value": port}}}


def _http(head: RequestHead, facts: Facts, body: BodyStart | None) -> dict[str, Any]:
    path = head.mount.sent + head.path + head.query
    http: dict[str, Any] = {
        "id": facts.hop.new_id(),
        "method": head.method,
        "headers": _headers(head, facts, path, body),
        "path": _text(path),
        "host": _text(head.host or b""),
        "scheme": head.scheme,
        "protocol": f"HTTP/{head.http_version}",
    }
    if body is not None:
        length = head.header(b"content-length")
        http["size"] = int(length) if length is not None else len(body.data)
        http["body" if _is_utf8(body.data) else "raw_body"] = body.data
    return http


def _headers(head: RequestHead, facts: Facts, path: bytes, body: BodyStart | None) -> dict[str, str]:
    """All headers of the request, with those that a service behind us would get for its client."""
    ours = [pair for pair in request_headers(APP, head, head.headers_by_name, facts.hop) if pair[0] in FORWARDED]
    left_out = FORWARDED | {b"host", PARTIAL_BODY}
    pairs = [pair for pair in head.headers if fold_underscores(pair[0]) not in left_out] + ours
    if body is not None:
        pairs.append((PARTIAL_BODY, b"true" if body.more else b"false"))
    pseudo = {
        ":authority": _text(head.host or b""),
        ":method": head.method,
        ":path": _text(path),
        ":scheme": head.scheme,
    }
    return {name.decode("latin-1"): _text(value) for name, value in joined(pairs, b",")} | pseudo


def _text(value: bytes) -> str:
    """A text of the protocol, which is UTF-8; other bytes are "!"."""
    return _NOT_UTF8.sub("!", value.decode("utf-8", "surrogateescape"))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def verdict(policy: AuthPolicy, head: RequestHead, answer: Dict[str, Any]) -> Verdict:
    """What the service has said.

    Raises:
        UpstreamProtocolError: it has set what is no header, no path or no status.
    """
    if not answer.get("status", {}).get("code"):
        said = answer.get("ok_response", {})
        return Verdict(_granted(policy, head, said), _pairs(policy, said.get("response_headers_to_add")))
    if "error_response" in answer:
        return Verdict(_refusal(policy, head, answer["error_response"], policy.status_on_error), failed=True)
    return Verdict(_refusal(policy, head, answer.get("denied_response", {}), 403))


def _refusal(policy: AuthPolicy, head: RequestHead, said: Dict[str, Any], default: int) -> Reply:
    status: int = said.get("status", {}).get("code") or default
    if not 200 <= status <= 599:
        raise _fault(policy, f"the status {status}")
    return refusal_reply(head, status, list(_pairs(policy, said.get("headers"))), said.get("body", "").encode())


def _granted(policy: AuthPolicy, head: RequestHead, said: Dict[str, Any]) -> RequestHead:
    """The request that a service has allowed, as it has changed it."""
    headers = [pair for pair in head.headers if not policy.is_granted(pair[0])]
    path, query = head.path, head.query
    for option in said.get("headers", ()):
        name, value = _pair(policy, option)
        if name == b":path":
            path, query = _target(policy, head, value)
        elif name in _AUTHORITY:
            headers = [(b"host", value), *(pair for pair in headers if pair[0] != b"host")]
        elif name not in NEVER_SET and name[:1] != b":":
            headers = _with(headers, name, value, append=option.get("append", {}).get("value", False))
    removed = {
        fold_underscores(name.strip().lower().encode()) for name in said.get("headers_to_remove", ())
    } - NEVER_SET
    given = {_pair(policy, option)[0] for option in said.get("headers", ())}
    headers = [pair for pair in unnominated(headers, given) if fold_underscores(pair[0]) not in removed]
    query = _changed_query(query, said)
    if headers == list(head.headers) and (path, query) == (head.path, head.query):
        return head
    other = head.replace(path=path, headers=headers)
    other.query = query
    return other


def _with(headers: list[tuple[bytes, bytes]], name: bytes, value: bytes, *, append: bool) -> list[tuple[bytes, bytes]]:
    """Set a header, or append to the value that there is; without any, nothing is appended."""
    if append:
        given = [each for known, each in headers if known == name]
        if not given:
            return headers
        value = (b"; " if name == b"cookie" else b",").join((*given, value))
    # An app behind CGI or WSGI takes `x_user` for `x-user`.
    folded = fold_underscores(name)
    return [*(pair for pair in headers if fold_underscores(pair[0]) != folded), (name, value)]


def _pairs(policy: AuthPolicy, options: Iterable[Dict[str, Any]] | None) -> Headers:
    """The headers of an answer to the client, without those that frame it."""
    pairs = (_pair(policy, option) for option in options or ())
    return tuple(pair for pair in pairs if pair[0] not in NEVER_SET and pair[0][:1] != b":")


def _pair(policy: AuthPolicy, option: Dict[str, Any]) -> tuple[bytes, bytes]:
    header = option.get("header", {})
    name = header.get("key", "").lower().encode()
    value: bytes = header.get("raw_value") or header.get("value", "").encode()
    if not well_formed((name.removeprefix(b":"),), (value,)):
        raise _fault(policy, f"the header {name[:80]!r}")
    return name, value.strip(b" \t")


def _target(policy: AuthPolicy, head: RequestHead, value: bytes) -> tuple[bytes, bytes]:
    """Path and query, as the rules see them."""
    path, mark, query = value.partition(b"?")
    try:
        return normalize_path(path.removeprefix(head.mount.sent)), check_query(mark + query)
    except ClientError as exc:
        raise _fault(policy, f"the path {value[:80]!r}") from exc


def _changed_query(query: bytes, said: Dict[str, Any]) -> bytes:
    given = {each.get("key", ""): each.get("value", "") for each in said.get("query_parameters_to_set", ())}
    removed = given.keys() | set(said.get("query_parameters_to_remove", ()))
    if not removed:
        return query
    parts = [part for part in query[1:].split(b"&") if part and not _is_named(part.partition(b"=")[0], removed)]
    parts += [f"{quote(name, safe='')}={quote(value, safe='')}".encode() for name, value in given.items()]
    return b"?" + b"&".join(parts) if parts else b""


def _is_named(written: bytes, names: Iterable[str]) -> bool:
    """Whether a parameter has one of the names, in any spelling that an app may read."""
    spellings = (unquote_to_bytes(written).decode("utf-8", "replace"), unquote_plus(written.decode("latin-1")))
    return any(spelling in names for spelling in spellings)


def _fault(policy: AuthPolicy, what: str) -> UpstreamProtocolError:
    return UpstreamProtocolError(f"AuthService {policy.name}: has set {what}, which is none", sent=True)
