"""TCPMapping documents: what they lead to, and what is wrong with them."""

from typing import Any

import pytest
from rules import findings, read_rules

from canary_mw.config.document import Document
from canary_mw.config.parser import RuleSet, parse
from canary_mw.rules.tcp.mapping import TCPMapping, covers, most_specific
from canary_mw.rules.tcp.ports import tcp_ports
from canary_mw.rules.upstream import CircuitBreakers, KubernetesService


def tcp(name: str = "a", **attributes: Any) -> str:
    lines = {"port": 9000, "service": "tcp1:9001", **attributes}
    spec = "".join(f"{key}: {value}\n" for key, value in lines.items() if value is not None)
    return f"---\napiVersion: getambassador.io/v3alpha1\nkind: TCPMapping\nname: {name}\n{spec}"


def context(name: str, **attributes: object) -> str:
    spec = "".join(f"{key}: {value}\n" for key, value in {"secret": "s", **attributes}.items())
    return f"---\napiVersion: getambassador.io/v3alpha1\nkind: TLSContext\nname: {name}\n{spec}"


def found(text: str) -> tuple[TCPMapping, ...]:
    return read_rules(text).shared.settings.tcp


def only(text: str) -> TCPMapping:
    (mapping,) = found(text)
    return mapping


def again(text: str, before: RuleSet) -> RuleSet:
    return parse([Document(text, "rules.yaml")], previous=before)


def test_a_document_has_emissarys_defaults() -> None:
    mapping = only(tcp())
    assert mapping[:5] == ("0.0.0.0", 9000, "", None, 3600.0)
    assert mapping.mapping.service.origin.authority == "tcp1:9001"
    assert read_rules(tcp()).diagnostics == ()


@pytest.mark.parametrize(
    ("given", "seconds"), [("'30000'", 30.0), ("30000", 30.0), ("'1'", 0.001), ("'0'", None), (0, None)]
)
def test_the_idle_time_is_a_text_or_a_number_of_milliseconds(given: object, seconds: float | None) -> None:
    assert only(tcp(idle_timeout_ms=given)).idle_timeout == seconds


def test_options_are_those_of_a_mapping() -> None:
    text = tcp(
        service="gray.shop:5432",
        tls="true",
        resolver="endpoint",
        connect_timeout_ms=500,
        circuit_breakers="[{max_connections: 2}]",
    )
    rule = only(text).mapping
    assert rule.service.origin[:3] == ("https", "gray.shop", 5432)
    assert rule.connect_timeout_ms == 500
    assert rule.options.circuit_breakers == CircuitBreakers(max_connections=2)
    assert rule.options.endpoints is not None
    assert rule.options.endpoints.kubernetes_service == KubernetesService("gray", "shop", 5432)


def test_a_tls_context_is_that_of_the_connection_to_the_upstream() -> None:
    rule = only(context("up") + tcp(tls="up")).mapping
    assert rule.options.tls is not None
    assert (rule.options.tls.name, rule.service.origin.scheme) == ("up", "https")


@pytest.mark.parametrize(
    "attributes",
    [
        {"port": 0},
        {"port": 70000},
        {"port": "x"},
        {"service": "''"},
        {"address": "localhost"},
        {"host": "a.*.example"},
        {"host": "'a b'"},
        {"host": "one.example"},
        {"idle_timeout_ms": "1s"},
        {"idle_timeout_ms": -1},
        {"connect_timeout_ms": -1},
        {"tls": "none"},
        {"resolver": "none"},
        {"circuit_breakers": "[{max_connections: -1}]"},
        {"port": None},
        {"service": None},
    ],
)
def test_an_error_takes_one_document_out_or_leaves_its_last_good_version(attributes: dict[str, Any]) -> None:
    good, bad = tcp("b", port=9002), tcp(**attributes)
    rules = read_rules(bad + good)
    assert [each.mapping.name for each in rules.shared.settings.tcp] == ["b"]
    assert "error" in {each[0] for each in findings(rules.diagnostics)}
    before = read_rules(tcp() + good)
    kept = {each.mapping.name: each[:5] for each in again(bad + good, before).shared.settings.tcp}
    assert kept == {each.mapping.name: each[:5] for each in before.shared.settings.tcp}


def test_what_is_gone_is_closed_and_what_cannot_be_read_removes_nothing() -> None:
    before = read_rules(tcp() + tcp("b", port=9002))
    assert len(again(tcp(), before).shared.settings.tcp) == 1
    assert len(again(tcp() + "---\n{", before).shared.settings.tcp) == 2


def test_a_name_that_is_there_twice_is_an_error_and_the_last_one_counts() -> None:
    rules = read_rules(tcp() + tcp(port=9002))
    assert [each.port for each in rules.shared.settings.tcp] == [9002]
    assert [each[:2] for each in findings(rules.diagnostics)] == [("error", "duplicate-name")]


def shares(text: str) -> dict[str, float]:
    (port,) = tcp_ports(found(text)).values()
    assert port.any is not None
    low, parts = 0.0, {}
    for bound, mapping in port.any.shares:
        parts[mapping.mapping.name] = round(bound - low, 6)
        low = max(low, bound)
    return parts


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"a": None}, {"a": 100}),
        ({"a": None, "b": 20}, {"b": 20, "a": 80}),
        ({"a": 50, "b": 30, "c": None}, {"a": 50, "b": 30, "c": 20}),
        ({"a": 20, "b": 30}, {"a": 40, "b": 60}),
        ({"a": None, "b": 0}, {"b": 0, "a": 100}),
        ({"a": None, "b": None}, {"a": 50, "b": 50}),
    ],
)
def test_weights_mean_what_they_say(weights: dict[str, int | None], expected: dict[str, float]) -> None:
    assert shares("".join(tcp(name, weight=weight) for name, weight in weights.items())) == expected


def test_a_mistake_in_a_weight_moves_no_share() -> None:
    before = read_rules(tcp("a") + tcp("b", weight=20))
    for wrong in (120, -1):
        rules = again(tcp("a") + tcp("b", weight=wrong), before)
        assert [(each.mapping.name, each.mapping.weight) for each in rules.shared.settings.tcp] == [
            ("a", None),
            ("b", 20),
        ]
        assert "error" in {each[0] for each in findings(rules.diagnostics)}


def test_the_certificate_is_that_of_the_most_specific_context() -> None:
    contexts = (
        context("wide", hosts="['*.example']", secret="wide")
        + context("one", hosts="[one.example]", secret="one")
        + "---\napiVersion: getambassador.io/v2\nkind: TLSContext\nname: bare\nhosts: ['two.example']\n"
    )
    for host, expected in (("one.example", "one"), ("two.example", "wide"), ("'*.example'", "wide")):
        certificate = only(contexts + tcp(host=host)).certificate
        assert certificate is not None
        assert certificate.name == expected


def test_members_of_a_port_are_told_apart_by_their_hosts() -> None:
    text = context("c", hosts="[one.example, '*.two.example']") + tcp("a", host="One.Example") + tcp("b")
    text += tcp("c", host="'*.two.example'") + tcp("d", address="127.0.0.1")
    ports = tcp_ports(found(text))
    assert list(ports) == [("0.0.0.0", 9000), ("127.0.0.1", 9000)]
    port = ports["0.0.0.0", 9000]

    def taken_by(name: str | None) -> str | None:
        group = port.of(name)
        return group.choose(0).mapping.name if group is not None else None

    assert taken_by("one.example") == "a"
    assert taken_by("x.two.example") == "c"
    assert [taken_by(name) for name in ("two.example", "", None, "none.example")] == ["b"] * 4
    assert (
        tcp_ports(found(context("c", hosts="[one.example]") + tcp(host="one.example")))["0.0.0.0", 9000].of("x") is None
    )


def test_names_below_a_wildcard_are_covered_and_the_longest_pattern_counts() -> None:
    assert covers("*.example", "a.b.example")
    assert not covers("*.example", "example")
    assert not covers("*.example", ".example")
    assert most_specific(["*.example", "*.b.example", "a.b.example"], "a.b.example") == "a.b.example"
    assert most_specific(["*.example", "*.b.example"], "a.b.example") == "*.b.example"
    assert most_specific(["*.example"], "other") is None


def test_ssh_with_a_host_and_attributes_without_effect_are_noticed() -> None:
    text = context("c", hosts="[one.example]") + tcp(host="one.example", port=22, enable_ipv4="true")
    assert [each[:2] for each in findings(read_rules(text).diagnostics)] == [
        ("notice", "no-effect"),
        ("warning", "no-server-name"),
    ]
