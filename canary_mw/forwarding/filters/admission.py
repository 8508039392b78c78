"""Whether a request may go on: a generator without I/O, driven from ASGI, WSGI and tests.

It yields calls of services, and asks for the beginning of the body. The driver sends the answer in, or throws an
`UpstreamError`. It returns the request as it goes on, or the reply to the client. Where a service fails the request is
refused, unless the document says otherwise.
"""

import json
from collections.abc import Generator
from typing import Any

from canary_mw.exceptions import BodyTooLarge, UpstreamError
from canary_mw.forwarding.exchange import direct_response
from canary_mw.forwarding.filters import auth_grpc, auth_http, rate_limit
from canary_mw.forwarding.filters.calls import Admission, Admitted, Asked, BodyStart, Facts, Settle, WantBody, Wanted
from canary_mw.forwarding.filters.guarding import is_guarded, is_probe, preflight, rule_of, was_asked
from canary_mw.forwarding.messages import Reply
from canary_mw.http.framing import body_framing
from canary_mw.http.messages import RequestHead
from canary_mw.routing.decided import Decision
from canary_mw.routing.table import RouteTable
from canary_mw.rules.cors import with_cors_headers
from canary_mw.rules.filters.asked import Filters
from canary_mw.rules.filters.auth import AuthPolicy
from canary_mw.rules.filters.limits import RateLimitPolicy
from canary_mw.rules.mapping import Mapping

_Outcome = Generator[Wanted, Any, RequestHead | Reply]


def admission(
    table: RouteTable, filters: Filters, decision: Decision | None, head: RequestHead, facts: Facts
) -> Admission:
    """Ask the services of the rules about a request.

    Preflights, redirects, refused upgrades and what nobody takes are answered later, or here, and asked about nowhere.

    Args:
        decision: for the request as the client has sent it.

    Raises:
        ClientError: the request cannot be asked about; `LoopDetected` is one.
    """
    head.asked = Asked()
    rule = rule_of(table, decision, head)
    if facts.wraps and (decision is None or decision.local):
        answer = preflight(rule, head)
        if answer is not None:
            return answer
    elif decision is None or _is_answered_later(decision, head, facts):
        return Admitted(decision, head)
    outcome: RequestHead | Reply = head
    if is_guarded(table, filters, decision, head, facts):
        outcome = yield from _authorize(filters, rule, head, facts)
    elif filters.auth is not None and (rule is None or not rule.bypass_auth) and not was_asked(decision, head, facts):
        # A probe, or what no Mapping takes: the app must not believe what no service has granted.
        outcome = auth_http.ungranted(filters.auth, head)
    if isinstance(outcome, Reply):
        return _with_cors(outcome, rule, head)
    if outcome is not head:
        outcome.asked = head.asked
        decision, head = facts.decide(outcome), outcome
        rule = rule_of(table, decision, head)
    if facts.asks_person:
        # Now, because the app believes headers that only the AuthService may give.
        decision = yield Settle(head)
        if head.asked.auth is None and is_guarded(table, filters, decision, head, facts):
            # The Mapping of a variant is guarded, that of stable is not.
            outcome = yield from _authorize(filters, rule_of(table, decision, head), head, facts)
            if isinstance(outcome, Reply):
                return _with_cors(outcome, rule, head)
            outcome.asked = head.asked
            decision, head = facts.decide(outcome), outcome
        rule = rule_of(table, decision, head)
    limited = yield from _limit(filters.rate_limit, rule, decision, head, facts)
    added = head.asked.response_headers
    if isinstance(limited, Reply):
        limited.headers = [*(limited.headers or ()), *added]
        return _with_cors(limited, rule, head)
    return limited._replace(response_headers=(*added, *limited.response_headers))


def _limit(
    policy: RateLimitPolicy | None, rule: Mapping | None, decision: Decision | None, head: RequestHead, facts: Facts
) -> Admission:
    """Ask the RateLimitService about a request, by the labels of its Mapping."""
    local = facts.wraps and (decision is None or decision.local)
    if policy is None or rule is None or was_asked(decision, head, facts):
        return Admitted(decision, head)
    if (local and is_probe(head, facts)) or (
        not local and (decision is None or _is_answered_later(decision, head, facts))
    ):
        return Admitted(decision, head)
    descriptors = policy.descriptors(rule.descriptors.get(policy.domain, ()), head, facts.client)
    if not descriptors:
        return Admitted(decision, head)
    asked, began = head.asked, facts.clock()
    try:
        answer = yield rate_limit.ask(policy, descriptors)
    except UpstreamError:
        asked.rate_limit = "error"
        return rate_limit.failure_reply(policy) or Admitted(decision, head)
    finally:
        asked.rate_limit_seconds = facts.clock() - began
    said = rate_limit.answer_of(policy, head, answer)
    asked.rate_limit = "ok" if said.reply is None else "over_limit"
    if said.reply is not None:
        return said.reply
    if said.request_headers:
        headers = [*head.headers, *said.request_headers]
        head = head.replace(headers=auth_http.unnominated(headers, dict(said.request_headers)))
    return Admitted(decision, head, said.response_headers)


def _is_answered_later(decision: Decision, head: RequestHead, facts: Facts) -> bool:
    if facts.websocket and not decision.allows_upgrade("websocket"):
        return True
    return direct_response(decision, head) is not None


def _with_cors(reply: Reply, rule: Mapping | None, head: RequestHead) -> Reply:
    if rule is not None and rule.cors is not None:
        reply.headers = with_cors_headers(rule.cors, head, list(reply.headers or ()))
    return reply


def _authorize(filters: Filters, rule: Mapping | None, head: RequestHead, facts: Facts) -> _Outcome:
    """Ask the AuthService; the request as it goes on, or the reply."""
    policy, asked = filters.auth, head.asked
    if policy is None:
        asked.auth = "error"
        return _misconfigured(filters.auth_in_error)
    began = facts.clock()
    try:
        return (yield from _ask(policy, rule, head, facts))
    except BodyTooLarge:
        asked.auth = "denied"
        return Reply(413, b"Payload Too Large", [(b"content-type", b"text/plain"), (b"content-length", b"17")])
    finally:
        asked.auth_seconds = facts.clock() - began


def _ask(policy: AuthPolicy, rule: Mapping | None, head: RequestHead, facts: Facts) -> _Outcome:
    body = None
    if policy.include_body is not None:
        body = yield from _body_start(policy, head)
    service = policy.services[facts.turn() % len(policy.services)]
    asked = head.asked
    asked.auth_service = service.text
    try:
        if policy.proto == "grpc":
            head = auth_grpc.identified(head, facts)
            fields = yield auth_grpc.ask(policy, service, rule, head, facts, body)
            return _settle(policy, head, auth_grpc.verdict(policy, head, fields))
        if policy.all_request_headers or b"x-request-id" in policy.request_headers:
            head = auth_grpc.identified(head, facts)
        answer = yield auth_http.ask(policy, service, head, facts.hop, body)
    except UpstreamError:
        return _failed(policy, head)
    if answer.status == 200:
        asked.auth = "allowed"
        return auth_http.granted(policy, head, answer)
    if not 200 < answer.status < 500:
        return _failed(policy, head)
    asked.auth = "denied"
    return auth_http.refusal(policy, head, answer)


def _settle(policy: AuthPolicy, head: RequestHead, said: auth_grpc.Verdict) -> RequestHead | Reply:
    """What happens after the verdict of a service."""
    asked = head.asked
    if said.failed:
        failed = _failed(policy, head)
        return said.outcome if isinstance(failed, Reply) else failed
    asked.auth = "denied" if isinstance(said.outcome, Reply) else "allowed"
    asked.response_headers = said.response_headers
    return said.outcome


def _body_start(policy: AuthPolicy, head: RequestHead) -> Generator[Wanted, Any, BodyStart | None]:
    """The beginning of the body that the service gets; None for an empty body.

    Raises:
        BodyTooLarge: the body is longer, and may not be cut.
    """
    wanted = policy.include_body
    framing = body_framing(head.headers_by_name)
    if wanted is None or framing == (0,) or (framing is None and head.http_version in ("1.0", "1.1")):
        return None
    if framing is not None and framing.length is not None and framing.length > wanted.max_bytes:
        _refuse_cut(policy)
    start: BodyStart = yield WantBody(wanted.max_bytes)
    if start.more:
        _refuse_cut(policy)
    return start


def _refuse_cut(policy: AuthPolicy) -> None:
    if policy.include_body is not None and not policy.include_body.allow_partial:
        raise BodyTooLarge("the body is longer than the auth service may get")


def _failed(policy: AuthPolicy, head: RequestHead) -> RequestHead | Reply:
    """What happens where the service has failed."""
    if policy.failure_mode_allow:
        head.asked.auth = "failed_open"
        return auth_http.ungranted(policy, head)
    head.asked.auth = "error"
    return Reply(policy.status_on_error, b"", [(b"content-length", b"0")])


def _misconfigured(name: str) -> Reply:
    text = f"the AuthService {name} is misconfigured; see the log of canary-mw"
    body = json.dumps({"message": text, "status_code": 500}).encode() + b"\n"
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return Reply(500, body, headers)
