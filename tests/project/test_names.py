"""Names that users have in their configuration: of loggers, metrics and variables. A change of them is a decision."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields

from installation import ROOT
from servers import fetch, hello, run, serving_app

from canary_mw.admin.app import create_admin
from canary_mw.control.sources.static import StaticSource
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.observability.prometheus import Metrics
from canary_mw.server.settings import Settings, variable

LOGGERS = """
canary_mw
canary_mw.access
canary_mw.access_log
canary_mw.admin
canary_mw.audience
canary_mw.demo
canary_mw.direct
canary_mw.endpoints
canary_mw.figures
canary_mw.log_service
canary_mw.middleware
canary_mw.observers
canary_mw.propagate
canary_mw.protocol
canary_mw.relay
canary_mw.rollouts
canary_mw.run_folder
canary_mw.shadow
canary_mw.sources
canary_mw.start
canary_mw.store
canary_mw.tcp
canary_mw.tls
canary_mw.tracing_service
""".split()
METRICS = """
canary_mw_access_log_dropped_lines_total counter
canary_mw_assignments_total counter
canary_mw_auth_seconds_total counter
canary_mw_auth_total counter
canary_mw_circuit_breaker_requests gauge
canary_mw_circuit_breaker_retries gauge
canary_mw_config_age_seconds gauge
canary_mw_ejections_total counter
canary_mw_event_values_total counter
canary_mw_events_total counter
canary_mw_fallbacks_total counter
canary_mw_gray_failures_total counter
canary_mw_ignored_events_total counter
canary_mw_in_flight_requests gauge
canary_mw_lanes_total counter
canary_mw_log_entries_total counter
canary_mw_predicates_total counter
canary_mw_rate_limit_seconds_total counter
canary_mw_rate_limit_total counter
canary_mw_refused_requests_total counter
canary_mw_release_controller gauge
canary_mw_release_evidence_log gauge
canary_mw_release_excess_upper gauge
canary_mw_release_keys gauge
canary_mw_release_phase gauge
canary_mw_release_step gauge
canary_mw_release_transitions_total counter
canary_mw_reloads_total counter
canary_mw_request_duration_seconds histogram
canary_mw_requests_total counter
canary_mw_retries_total counter
canary_mw_rules gauge
canary_mw_rules_clean gauge
canary_mw_rules_generation gauge
canary_mw_shadow_total counter
canary_mw_spans_total counter
canary_mw_stalled_clients_total counter
canary_mw_tcp_bytes_total counter
canary_mw_tcp_connections_total counter
canary_mw_upstream_connections gauge
canary_mw_upstream_errors_total counter
canary_mw_upstream_waiting_requests gauge
canary_mw_verdict gauge
canary_mw_weight_ratio gauge
canary_mw_workers gauge
canary_mw_workers_current gauge
""".strip().splitlines()
VARIABLES = """
CANARY_MW_ACCESS_LOG
CANARY_MW_ACCESS_LOG_FORMAT
CANARY_MW_ADMIN
CANARY_MW_ADMIN_HOST
CANARY_MW_ADMIN_HOST_NAMES
CANARY_MW_ADMIN_PORT
CANARY_MW_ADMIN_TOKEN_FILE
CANARY_MW_AMBASSADOR_ID
CANARY_MW_CACHE
CANARY_MW_CACHE_MAX_AGE
CANARY_MW_DNS_INTERVAL
CANARY_MW_ENABLED
CANARY_MW_ENDPOINTS
CANARY_MW_ENV_NAMES
CANARY_MW_EVENTS
CANARY_MW_FAST_PATH
CANARY_MW_FILTERS
CANARY_MW_FORWARDED_ALLOW_IPS
CANARY_MW_GRACE
CANARY_MW_GUARD_UNMAPPED
CANARY_MW_HEADER_KEY_FILE
CANARY_MW_HOOK_HOSTS
CANARY_MW_HOST
CANARY_MW_ID
CANARY_MW_KEEP_ALIVE
CANARY_MW_LOCAL
CANARY_MW_LOG_LEVEL
CANARY_MW_MAX_CONNECTIONS
CANARY_MW_PEERS
CANARY_MW_PEER_TOKEN_FILE
CANARY_MW_PLAIN_SOCKETS
CANARY_MW_PORT
CANARY_MW_PROPAGATE_HOSTS
CANARY_MW_REPLAY_LIMIT
CANARY_MW_RULES
CANARY_MW_RUN_DIR
CANARY_MW_SECRETS
CANARY_MW_SHADOW_LIMIT
CANARY_MW_SHADOW_WRITES
CANARY_MW_SINGLE
CANARY_MW_SSL_CA_CERTS
CANARY_MW_SSL_CERTFILE
CANARY_MW_SSL_CERT_REQS
CANARY_MW_SSL_KEYFILE
CANARY_MW_STATE
CANARY_MW_STRICT
CANARY_MW_TRACING
CANARY_MW_TRUSTED_HEADERS
CANARY_MW_UNGUARDED
CANARY_MW_UPSTREAM
CANARY_MW_WORKERS
CANARY_MW_ZONE
""".split()


def trees() -> Iterator[ast.AST]:
    for path in sorted((ROOT / "canary_mw").rglob("*.py")):
        yield ast.parse(path.read_text(encoding="utf-8"))


def logger_names(tree: ast.AST) -> Iterator[str]:
    """What `getLogger` is called with, where it is a text; `__name__` is not, and would change with the module's."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "logging.getLogger":
            name = call.args[0]
            if isinstance(name, ast.Constant):
                yield str(name.value)
            elif ast.unparse(name) == "__name__":
                yield "__name__"


def test_loggers() -> None:
    assert sorted({name for tree in trees() for name in logger_names(tree)}) == LOGGERS


def test_metrics() -> None:
    async def main() -> str:
        metrics = Metrics()
        middleware = CanaryMiddleware(hello, rules=StaticSource(""), observers=[metrics])
        metrics.follow(middleware)
        async with serving_app(create_admin(middleware.store, metrics), lifespan="off") as port:
            return (await fetch(port, "/metrics")).body.decode()

    assert sorted(re.findall(r"^# TYPE (\S+ \S+)$", run(main()), re.MULTILINE)) == METRICS


def test_variables() -> None:
    texts = [node.value for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    written = {text for text in texts if isinstance(text, str) and re.fullmatch(r"CANARY_MW_[A-Z_]+", text)}
    assert sorted(written | {variable(each.name) for each in fields(Settings)}) == VARIABLES
