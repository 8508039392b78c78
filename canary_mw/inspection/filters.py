"""What is said of services that are asked about every request: by `explain`, `check`, at start, and after a reload."""

from collections.abc import Iterator
from dataclasses import replace

from canary_mw.config.document import Diagnostic
from canary_mw.forwarding.exchange import direct_response
from canary_mw.forwarding.filters.calls import Facts
from canary_mw.forwarding.filters.guarding import is_guarded, preflight, rule_of
from canary_mw.forwarding.hop import HopContext
from canary_mw.http.messages import RequestHead
from canary_mw.routing.decided import Decision
from canary_mw.routing.decision import decide
from canary_mw.routing.table import RouteTable
from canary_mw.rules.filters.asked import Filters
from canary_mw.rules.filters.auth import PROBES
from canary_mw.rules.filters.limits import RateLimitPolicy
from canary_mw.rules.mapping import Mapping

# What begins the line about a table that asks nobody any more.
OPENED = "nobody is asked any more"
# Seconds; a first connection may take that long.
_LITTLE_TIME = 0.05
_HOP = HopContext(b"canary-mw", trusted=False, new_id=lambda: b"")


def asked_about(table: RouteTable, decision: Decision | None, head: RequestHead, roll: float = 0.0) -> list[str]:
    """What is asked about a request before it goes on, in words; empty for nothing.

    The headers of the request are taken as they are after the answer.
    """
    filters = table.filters
    if filters is None or _is_answered(table, decision, head):
        return []
    facts = Facts(
        lambda other: decide(table, other, roll), _HOP, table.middleware, int, float, unguarded=frozenset(PROBES)
    )
    found = [_auth_in_words(filters)] if is_guarded(table, filters, decision, head, facts) else []
    return [*found, *_limits_in_words(filters.rate_limit, rule_of(table, decision, head), head)]


def _limits_in_words(policy: RateLimitPolicy | None, rule: Mapping | None, head: RequestHead) -> Iterator[str]:
    """What a RateLimitService counts."""
    if policy is None or rule is None:
        return
    for entries in policy.descriptors(rule.descriptors.get(policy.domain, ()), head, head.client):
        text = ", ".join(f"{key}={value}" for key, value in entries)
        yield f"asks RateLimitService {policy.name} ({policy.service.text}) about {text}"


def _is_answered(table: RouteTable, decision: Decision | None, head: RequestHead) -> bool:
    """Whether nobody is asked because nothing goes on."""
    if table.middleware and (decision is None or decision.local):
        return preflight(rule_of(table, decision, head), head) is not None
    return decision is None or direct_response(decision, head) is not None


def _auth_in_words(filters: Filters) -> str:
    if filters.auth is None:
        return f"AuthService {filters.auth_in_error} is in error: answered 500"
    services = ", ".join(each.text for each in filters.auth.services)
    return f"asks AuthService {filters.auth.name} ({services})"


def start_texts(table: RouteTable, *, asks: bool, guard_unmapped: bool = True) -> Iterator[tuple[str, bool]]:
    """What is said at start, and whether it is a warning.

    Args:
        asks: whether this process asks anybody.
        guard_unmapped: see `lint_filters`.
    """
    filters = table.settings.filters
    if filters.rate_limit is not None:
        text = f"RateLimitService {filters.rate_limit.name} ({filters.rate_limit.service.text})"
        yield (f"asks {text}" if asks else f"{text} is not asked: filters are turned off"), not asks
    if filters.auth is None and not filters.auth_in_error:
        return
    name = filters.auth.name if filters.auth is not None else filters.auth_in_error
    if not asks:
        yield f"AuthService {name} is not asked: filters are turned off", True
    elif table.filters is None:
        yield f"AuthService {name} is this process itself: nobody is asked, and every request passes", True
    elif filters.auth is None:
        yield f"AuthService {name} is in error, and has no good version: what it guards is answered with 500", True
    else:
        yield _auth_in_words(filters), False
        yield from (
            (each.message, True)
            for each in lint_filters(table, guard_unmapped=guard_unmapped)
            if each.code == "unguarded"
        )


def lint_filters(table: RouteTable, *, guard_unmapped: bool = True) -> list[Diagnostic]:
    """An AuthService that guards less than it seems to, or nothing; a RateLimitService that has little time.

    Args:
        guard_unmapped: requests of an app that no Mapping takes are asked about.
    """
    found = [*_local_auth(table), *_short_time(table.settings.filters.rate_limit)]
    if table.middleware and not guard_unmapped and table.filters is not None and table.filters.auth is not None:
        text = f"AuthService {table.filters.auth.name}: what no Mapping takes goes to the app unasked"
        hint = "leave CANARY_MW_GUARD_UNMAPPED out to have it guarded"
        found.append(
            Diagnostic(severity="warning", code="unguarded", message=text, file="CANARY_MW_GUARD_UNMAPPED", hint=hint)
        )
    return found


def _short_time(policy: RateLimitPolicy | None) -> Iterator[Diagnostic]:
    if policy is not None and policy.timeout is not None and policy.timeout < _LITTLE_TIME:
        failing = "is answered with 500" if policy.failure_mode_deny else "passes uncounted"
        time = f"{policy.timeout * 1000:g} ms"
        text = f"RateLimitService {policy.name}: without an answer in {time}, a request {failing}"
        yield Diagnostic(
            severity="notice",
            code="little-time",
            message=text,
            file=policy.file,
            line=policy.line or None,
            hint="give timeout_ms 50 or more",
        )


def _local_auth(table: RouteTable) -> list[Diagnostic]:
    filters = table.settings.filters
    if filters.auth is None or (table.filters is not None and table.filters.auth is not None):
        return []
    text = f"AuthService {filters.auth.name} is the local service: this process asks nobody, and every request passes"
    hint = "name the service of the app in --local, not that of the AuthService"
    return [Diagnostic(severity="warning", code="auth-is-local", message=text, file="--local", hint=hint)]


def change_lines(before: RouteTable, after: RouteTable) -> Iterator[str]:
    """What a reload has changed of what is asked."""
    old, new = before.settings.filters, after.settings.filters
    if old.rate_limit != new.rate_limit:
        limits = new.rate_limit or old.rate_limit
        what = "changed" if old.rate_limit and new.rate_limit else "is new" if new.rate_limit else "is gone"
        yield f"RateLimitService {limits.name if limits else ''} {what}"
    if replace(old, rate_limit=None) == replace(new, rate_limit=None):
        return
    if new.auth is None and not new.auth_in_error:
        yield f"{OPENED} who sends a request: AuthService {_name(old)} is gone"
    elif old.auth is None and not old.auth_in_error:
        yield f"AuthService {_name(new)} is new: it guards every request that no Mapping exempts"
    else:
        yield f"AuthService {_name(new)} changed"


def _name(filters: Filters) -> str:
    return filters.auth.name if filters.auth is not None else filters.auth_in_error
