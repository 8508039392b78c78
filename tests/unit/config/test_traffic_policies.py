from typing import Any

import pytest
from rules import document, findings, one, read_rules

from canary_mw.config.ambassador.traffic_policies import seconds
from canary_mw.exceptions import MappingError
from canary_mw.rules.mapping import Retry
from canary_mw.rules.upstream import DEFAULT_OPTIONS, CircuitBreakers, UpstreamOptions


@pytest.mark.parametrize(
    ("text", "result"),
    [("1.5s", 1.5), ("500ms", 0.5), ("1m30s", 90.0), ("2h", 7200.0), ("0s", 0.0), ("1.s", 1.0), ("1s500ms", 1.5)],
)
def test_a_duration_is_read_as_go_writes_it(text: str, result: float) -> None:
    assert seconds(text) == pytest.approx(result)


@pytest.mark.parametrize(
    "text",
    ["", "5", "s", "-1s", "1 s", "1.5", "1s ", "1d", "1s2", "abc", "1,5s", pytest.param("9" * 400 + "s", id="∞")],
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(MappingError, match="is not a duration") as caught:
        seconds(text)
    assert caught.value.hint == "write 1.5s or 500ms"


def test_a_mapping_without_limits_has_the_default_ones() -> None:
    rule = one(document())
    assert (rule.options, rule.retry, rule.cors) == (DEFAULT_OPTIONS, None, None)


def test_timeouts_are_converted_to_seconds() -> None:
    rule = one(
        document(
            retry_policy="{retry_on: gateway-error, num_retries: 4, per_try_timeout: 1.5s}",
            idle_timeout_ms=250,
            cluster_idle_timeout_ms=30000,
            cluster_max_connection_lifetime_ms=60000,
            circuit_breakers="[{max_connections: 1, max_pending_requests: 2, max_requests: 3, max_retries: 4}]",
        )
    )
    assert rule.retry == Retry("gateway-error", 4)
    assert rule.options == UpstreamOptions(1.5, 0.25, 30.0, 60.0, CircuitBreakers(1, 2, 3, 4))


def test_zero_is_no_limit_and_no_retry() -> None:
    rule = one(document(retry_policy="{retry_on: 5xx, num_retries: 0, per_try_timeout: 0s}", idle_timeout_ms=0))
    assert rule.retry == Retry("5xx", 0)
    assert rule.options == DEFAULT_OPTIONS


def test_one_retry_is_the_default() -> None:
    assert one(document(retry_policy="{retry_on: 5xx}")).retry == Retry("5xx", 1)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"circuit_breakers": "[]"}, None),
        ({"circuit_breakers": "[{max_requests: 5}]"}, CircuitBreakers(max_requests=5)),
        ({"circuit_breakers": "[{max_requests: 0}]"}, CircuitBreakers(max_requests=0)),
        ({"circuit_breakers": "[{priority: high, max_requests: 5}]"}, None),
        (
            {"circuit_breakers": "[{priority: high, max_requests: 5}]", "priority": "high"},
            CircuitBreakers(max_requests=5),
        ),
        (
            {"circuit_breakers": "[{priority: default, max_retries: 5}, {priority: high}]", "priority": "high"},
            CircuitBreakers(),
        ),
        ({"circuit_breakers": "[{max_requests: 5, novelty: 1}]"}, CircuitBreakers(max_requests=5)),
    ],
)
def test_circuit_breakers_are_those_of_the_priority_of_the_mapping(
    more: dict[str, str], expected: CircuitBreakers | None
) -> None:
    assert one(document(**more)).options.circuit_breakers == expected


@pytest.mark.parametrize(
    ("more", "line", "message"),
    [
        ({"retry_policy": "{retry_on: 5xx, num_retries: -1}"}, 7, "num_retries -1 is negative (0 means no retry)"),
        ({"retry_policy": "\n  retry_on: 5xx\n  per_try_timeout: 5"}, 9, "per_try_timeout must be a text"),
        ({"retry_policy": "\n  retry_on: 5xx\n  per_try_timeout: '5'"}, 9, "'5' is not a duration"),
        ({"retry_policy": "{retry_on: [5xx]}"}, 7, "retry_policy.retry_on must be"),
        ({"retry_policy": "{retry_on: never}"}, 7, "not the text 'never'"),
        ({"weight": 1, "idle_timeout_ms": -1}, 8, "-1 ms is negative"),
        ({"weight": 1, "cluster_idle_timeout_ms": -1}, 8, "-1 ms is negative"),
        ({"weight": 1, "cluster_max_connection_lifetime_ms": -1}, 8, "-1 ms is negative"),
        ({"weight": 1, "circuit_breakers": "[{max_requests: -2}]"}, 8, "max_requests -2 is negative"),
        ({"weight": 1, "circuit_breakers": "[{priority: low}]"}, 8, "circuit_breakers[0].priority must be"),
        ({"cors": '{methods: "GET\\r\\nx: y"}'}, 7, "holds a control character"),
        ({"cors": '{headers: ["a\\nb"]}'}, 7, "holds a control character"),
        ({"cors": '{exposed_headers: ["a\\0"]}'}, 7, "holds a control character"),
        ({"cors": '{max_age: "1\\n"}'}, 7, "holds a control character"),
    ],
)
def test_a_limit_that_cannot_work_is_an_error_on_its_line(more: dict[str, Any], line: int, message: str) -> None:
    rules = read_rules(document(**more) + document("b"))
    assert [m.name for m in rules.mappings] == ["b"]
    (error,) = rules.diagnostics
    assert (error.severity, error.line) == ("error", line)
    assert message in str(error)


def test_all_wrong_limits_are_reported_at_once() -> None:
    wrong = document(idle_timeout_ms=-1, cluster_idle_timeout_ms=-1, circuit_breakers="[{max_retries: -1}]")
    assert [line for _, _, line in findings(read_rules(wrong).diagnostics)] == [7, 8, 9]


def test_linkerd_gets_the_service_as_host_and_port() -> None:
    changes = one(document(service="shop.prod", add_linkerd_headers="true", add_request_headers="{x: y}"))
    assert [tuple(change) for change in changes.add_request_headers] == [
        (b"x", b"y", True),
        (b"l5d-dst-override", b"shop.prod:80", False),
    ]
    assert one(document(add_linkerd_headers="false")).add_request_headers == ()
