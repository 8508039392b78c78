"""Which requests an AuthService is asked about."""

from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from canary_mw.exceptions import BadTarget, ClientError, ConfigError
from canary_mw.forwarding.filters.auth_http import ungranted
from canary_mw.forwarding.filters.calls import Facts
from canary_mw.forwarding.messages import Reply
from canary_mw.http.messages import RequestHead
from canary_mw.http.target import normalize_path
from canary_mw.routing.decided import Decision
from canary_mw.routing.governed import APP
from canary_mw.routing.table import RouteTable
from canary_mw.rules.cors import preflight_headers
from canary_mw.rules.filters.asked import Filters
from canary_mw.rules.mapping import Mapping


def rule_of(table: RouteTable, decision: Decision | None, head: RequestHead) -> Mapping | None:
    """The Mapping whose attributes count for a request: that of its decision.

    Where weights leave the request of a group to the app, that is the first Mapping of the group: else a share of its
    requests would be guarded, and the rest not. None where no Mapping matches.
    """
    if decision is not None and decision.mapping is not APP:
        return decision.mapping
    groups = (group for group in table.candidates(head) if all(matches(head) for matches in group.checks))
    return next((group.first for group in groups), None)


def preflight(rule: Mapping | None, head: RequestHead) -> Reply | None:
    """The answer to a CORS preflight for a local request: a browser sends no credentials with it."""
    allowed = preflight_headers(rule.cors, head) if rule is not None and rule.cors is not None else None
    return None if allowed is None else Reply(200, b"", [*allowed, (b"content-length", b"0")])


def is_guarded(table: RouteTable, filters: Filters, decision: Decision | None, head: RequestHead, facts: Facts) -> bool:
    """Whether the service is asked about a request.

    A header that only the service may give must not lead to a Mapping with `bypass_auth`: such a request is looked at
    once more without it.
    """
    if not (filters.auth or filters.auth_in_error) or was_asked(decision, head, facts):
        return False
    if not _is_free(table, decision, head, facts):
        return True
    other = head if filters.auth is None else ungranted(filters.auth, head)
    return other is not head and not _is_free(table, facts.decide(other), other, facts)


def was_asked(decision: Decision | None, head: RequestHead, facts: Facts) -> bool:
    """Whether a canary-mw of this deployment has asked, and then sent the request here. Nobody else can sign that."""
    if facts.is_sent is None or decision is None or not decision.local or decision.mapping is APP:
        return False
    return facts.is_sent(head, decision.mapping.via_comment)


def _is_free(table: RouteTable, decision: Decision | None, head: RequestHead, facts: Facts) -> bool:
    local = facts.wraps and (decision is None or decision.local)
    if local and not facts.same_path:
        # The app may see another path than the rules.
        return False
    if local and is_probe(head, facts):
        return True
    rule = rule_of(table, decision, head)
    return rule.bypass_auth if rule is not None else not (local and facts.guard_unmapped)


def is_probe(head: RequestHead, facts: Facts) -> bool:
    """Whether a local request has a path that is never asked about."""
    return facts.same_path and head.path in facts.unguarded


def paths_of(texts: Iterable[str]) -> frozenset[bytes]:
    """Paths that are never asked about, as the rules see them.

    Raises:
        ConfigError: one is not a path.
    """
    try:
        return frozenset(_path(text) for text in texts)
    except ClientError as exc:
        raise ConfigError(str(exc), hint="write /healthz") from exc


def _path(text: str) -> bytes:
    if not text.startswith("/"):
        raise BadTarget(f"{text!r} is not a path")
    return normalize_path(text.encode())


def is_same_path(head: RequestHead, app_path: bytes) -> bool:
    """Whether the path by which an app routes is the one that the rules see, segment by segment.

    `%2F` is no slash to the rules, and one to an app that gets the path without escapes.

    Args:
        app_path: without escapes, and without what the app is mounted at.
    """
    plain = unquote_to_bytes(head.path)
    return plain == app_path and plain.count(b"/") == head.path.count(b"/") and b"\\" not in plain
