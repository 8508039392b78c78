import pytest
from rules import document, findings, one, read_rules

from canary_mw.rules.upstream import Cookie, EndpointOptions, HealthCheck, LoadBalancing, OutlierDetection


def endpoint_options(**attributes: str) -> EndpointOptions | None:
    return one(document(**attributes)).options.endpoints


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{policy: least_request}", LoadBalancing("least_request")),
        ("{policy: ring_hash, header: X-User}", LoadBalancing("ring_hash", header=b"x-user")),
        ("{policy: maglev, source_ip: true}", LoadBalancing("maglev", source_ip=True)),
        ("{policy: ring_hash, cookie: {name: c}}", LoadBalancing("ring_hash", Cookie(b"c"))),
        ("{policy: maglev, cookie: {name: c, ttl: 0s}}", LoadBalancing("maglev", Cookie(b"c", ttl=0.0))),
        (
            "{policy: ring_hash, cookie: {name: c, path: /p, ttl: 1m}}",
            LoadBalancing("ring_hash", Cookie(b"c", b"/p", 60.0)),
        ),
    ],
)
def test_a_load_balancer_is_read_without_any_resolver(text: str, expected: LoadBalancing) -> None:
    assert endpoint_options(load_balancer=text) == EndpointOptions(expected)


def test_default_endpoint_options_are_none() -> None:
    assert endpoint_options() is None
    assert endpoint_options(load_balancer="{policy: round_robin}") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{policy: round_robin, header: x}", "round_robin hashes nothing, but header is given"),
        ("{policy: least_request, cookie: {name: c}}", "least_request hashes nothing"),
        ("{policy: ring_hash}", "needs one of cookie, header and source_ip, not none"),
        ("{policy: maglev, header: x, source_ip: true}", "not header and source_ip"),
        ("{policy: maglev, header: 'a b'}", "'a b' is not a header name"),
        ("{policy: maglev, cookie: {name: 'a;b'}}", "'a;b' is not the name of a cookie"),
        ("{policy: maglev, cookie: {name: a, path: '/; Domain=x'}}", "is not the path of a cookie"),
        ('{policy: maglev, cookie: {name: a, path: "/\\r\\n"}}', "is not the path of a cookie"),
        ("{policy: maglev, cookie: {name: a, ttl: soon}}", "'soon' is not a duration"),
    ],
)
def test_a_load_balancer_that_cannot_work_rejects_its_mapping(text: str, problem: str) -> None:
    rules = read_rules(document(load_balancer=text))
    assert rules.mappings == ()
    assert findings(rules.diagnostics) == [("error", "bad-value", 7)]
    assert problem in rules.diagnostics[0].message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", OutlierDetection()),
        (
            "{consecutive_5xx: 2, consecutive_gateway_failure: 1, max_ejection_percent: 50}",
            OutlierDetection(2, 1, max_ejection_percent=50),
        ),
        (
            "{interval: 1s, base_ejection_time: 500ms, max_ejection_time: 1m}",
            OutlierDetection(interval=1.0, base_ejection_time=0.5, max_ejection_time=60.0),
        ),
        ("'{consecutive_5xx: 2}'", OutlierDetection(2)),
        ("'consecutive_5xx: 2'", OutlierDetection(2)),
    ],
)
def test_outlier_detection_is_a_map_or_the_text_of_one(text: str, expected: OutlierDetection) -> None:
    rules = read_rules(document(outlier_detection=text))
    assert rules.diagnostics == ()
    assert rules.mappings[0].options.endpoints == EndpointOptions(outlier_detection=expected)


@pytest.mark.parametrize(
    "text", ["abc", "'{'", "[1]", "3", "{consecutive_5xx: many}", "{interval: 0s}", "{interval: x}"]
)
def test_outlier_detection_that_cannot_be_read_is_reported_and_does_not_reject_the_mapping(text: str) -> None:
    rules = read_rules(document(outlier_detection=text))
    assert findings(rules.diagnostics) == [("warning", "outlier-detection", 7)]
    assert rules.mappings[0].options.endpoints is None


def test_an_empty_outlier_detection_is_none() -> None:
    assert endpoint_options(outlier_detection="''") is None
    assert endpoint_options(outlier_detection="' '") is None


def test_what_has_no_effect_in_outlier_detection_is_reported() -> None:
    rules = read_rules(document(outlier_detection="{consecutive_5xx: 2, success_rate_minimum_hosts: 3}"))
    assert findings(rules.diagnostics) == [("warning", "outlier-detection", 7)]
    assert "success_rate_minimum_hosts has no effect" in rules.diagnostics[0].message
    assert rules.mappings[0].options.endpoints == EndpointOptions(outlier_detection=OutlierDetection(2))


def test_health_checks_are_read_with_emissarys_defaults() -> None:
    found = endpoint_options(health_checks="[{health_check: {http: {path: /health}}}]")
    assert found == EndpointOptions(health_checks=(HealthCheck(b"/health"),))


def test_a_health_check_sets_the_request_and_the_expected_statuses() -> None:
    http = (
        "{path: /h, hostname: shop.test, add_request_headers: {X-B: {value: b}, x-a: a, x-c: c},"
        " remove_request_headers: [X-C], expected_statuses: [{min: 200, max: 204}, {min: 404, max: 404}]}"
    )
    times = "interval: 2s, timeout: 1s, healthy_threshold: 3, unhealthy_threshold: 4"
    found = endpoint_options(health_checks=f"[{{health_check: {{http: {http}}}, {times}}}]")
    assert found is not None
    assert found.health_checks == (
        HealthCheck(b"/h", b"shop.test", ((b"x-b", b"b"), (b"x-a", b"a")), ((200, 204), (404, 404)), 2.0, 1.0, 3, 4),
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{health_check: {http: {path: health}}}", "'health' is not a path"),
        ("{health_check: {http: {path: '/a b'}}}", "is not a path"),
        ("{health_check: {http: {path: /, hostname: 'a b'}}}", "'a b' is not a host name"),
        ("{health_check: {http: {path: /, add_request_headers: {content-length: '3'}}}}", "cannot be sent"),
        ('{health_check: {http: {path: /, add_request_headers: {x: "a\\nb"}}}}', "cannot be sent"),
        ("{health_check: {http: {path: /, add_request_headers: {'a b': x}}}}", "is not a header name"),
        ("{health_check: {http: {path: /}}, interval: 0s}", "interval '0s' is not a time"),
        ("{health_check: {http: {path: /}}, unhealthy_threshold: 0}", "unhealthy_threshold 0 is less than 1"),
    ],
)
def test_a_health_check_that_cannot_be_made_rejects_its_mapping(text: str, problem: str) -> None:
    rules = read_rules(document(health_checks=f"[{text}]"))
    assert rules.mappings == ()
    assert problem in rules.diagnostics[0].message


def test_a_health_check_by_grpc_is_left_out_and_reported() -> None:
    rules = read_rules(document(health_checks="[{health_check: {grpc: {upstream_name: shop}}}]"))
    assert findings(rules.diagnostics) == [("notice", "no-effect-yet", 7)]
    assert rules.mappings[0].options.endpoints is None
