"""Calls of the services of filters as client spans."""

from collections.abc import Mapping as Dict
from typing import Any

from canary_mw.exceptions import UpstreamError
from canary_mw.forwarding.filters.auth_grpc import METHOD as AUTH_METHOD
from canary_mw.forwarding.filters.calls import Admission, Admitted, AskGrpc, AskHttp, HttpAnswer, Wanted
from canary_mw.forwarding.messages import Reply, Tries
from canary_mw.forwarding.tracing.interfaces import RequestTrace


def traced_admission(steps: Admission, trace: RequestTrace) -> Admission:
    """The same admission, with a span of each call."""
    try:
        wanted = next(steps)
        while True:
            wanted, tries = _with_span(wanted, trace)
            try:
                given = yield wanted
            except UpstreamError as exc:
                if tries is not None:
                    tries.failed(exc)
                wanted = steps.throw(exc)
            else:
                if tries is not None:
                    tries.answered(*_outcome(wanted, given))
                wanted = steps.send(given)
    except StopIteration as stop:
        outcome: Admitted | Reply = stop.value
        return outcome
    finally:
        steps.close()


def _with_span(wanted: Wanted, trace: RequestTrace) -> tuple[Wanted, Tries | None]:
    if isinstance(wanted, AskHttp):
        tries = wanted.request.trace = trace.tries("default", wanted.request.mapping)
        return wanted, tries
    if isinstance(wanted, AskGrpc):
        tries = trace.tries("default", wanted.rule)
        return wanted._replace(trace=tries), tries
    return wanted, None


def _outcome(wanted: Wanted, given: Any) -> tuple[int, str | None]:
    """The status of an answer, and what an AuthService has said, as Envoy names it."""
    if isinstance(given, HttpAnswer):
        return given.status, "ext_authz_ok" if given.status == 200 else "ext_authz_unauthorized"
    if isinstance(wanted, AskGrpc) and wanted.method != AUTH_METHOD:
        return 200, None
    status = given.get("status")
    code = status.get("code", 0) if isinstance(status, Dict) else 0
    return 200, "ext_authz_unauthorized" if code else "ext_authz_ok"
