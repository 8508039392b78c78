"""LogService documents: each attribute, what is taken as meant, and what is an error."""

import pytest
from log_receiver import PLAIN, SERVICE

from canary_mw.config.document import Document
from canary_mw.config.parser import RuleSet, parse
from canary_mw.rules.filters.logs import LogPolicy

HEADERS = """driver: http
protocol_version: v3
flush_interval_time: 3
flush_interval_byte_size: 100
driver_config:
  additional_log_headers:
  - {header_name: X-Both}
  - {header_name: x-back, during_request: false}
  - {header_name: x-there, during_response: false}
"""


def read(text: str, previous: RuleSet | None = None) -> RuleSet:
    return parse([Document(text, "rules")], previous=previous)


def policies(rules: RuleSet) -> tuple[LogPolicy, ...]:
    return rules.shared.settings.logs


def codes(rules: RuleSet) -> list[tuple[str, str]]:
    return [(each.severity, each.code) for each in rules.diagnostics]


def test_every_attribute_counts() -> None:
    rules = read(SERVICE + HEADERS)
    assert rules.diagnostics == ()
    (policy,) = policies(rules)
    assert (policy.name, policy.service.text, policy.driver, policy.node) == ("als", "logs", "http", "default-default")
    assert (policy.request_headers, policy.response_headers) == (("x-both", "x-there"), ("x-both", "x-back"))
    assert (policy.flush_interval, policy.flush_bytes) == (3.0, 100)


@pytest.mark.parametrize("version", ["v0", "v1", "v2", "v3alpha1"])
def test_all_versions_are_read(version: str) -> None:
    name = "protocol_version" if version == "v3alpha1" else "v3ProtocolVersion"
    text = SERVICE.replace("v3alpha1", version) + PLAIN.replace("protocol_version", name)
    rules = read(text)
    assert (codes(rules), len(policies(rules))) == ([], 1)


def test_what_is_left_out_is_taken_as_meant() -> None:
    rules = read(SERVICE.replace("grpc: true\n", ""))
    assert codes(rules) == [
        ("notice", "taken-as-grpc"),
        ("notice", "no-driver-config"),
        ("notice", "protocol-version"),
    ]
    assert len(policies(rules)) == 1
    assert ("notice", "taken-as-grpc") in codes(read(SERVICE.replace("grpc: true", "grpc: false")))


def test_all_documents_count() -> None:
    rules = read(SERVICE + PLAIN + SERVICE.replace("als", "other") + PLAIN)
    assert [each.name for each in policies(rules)] == ["als", "other"]


@pytest.mark.parametrize(
    "wrong",
    [
        PLAIN.replace("v3", "v2"),
        PLAIN.replace("driver: http", "driver: udp"),
        PLAIN.replace("time: 0", "time: -1"),
        "driver: tcp\ndriver_config: {additional_log_headers: [{header_name: x}]}\n",
        "driver_config: {additional_log_headers: [{header_name: ''}]}\n",
        "driver_config: {additional_log_headers: [{}]}\n",
    ],
)
def test_an_error_leaves_the_last_good_version(wrong: str) -> None:
    good = read(SERVICE + PLAIN)
    rules = read(SERVICE + wrong, good)
    assert [severity for severity, _ in codes(rules) if severity == "error"] == ["error"]
    assert policies(rules) == policies(good)
    assert policies(read(SERVICE + wrong)) == ()


def test_a_document_of_another_ambassador_is_passed_over() -> None:
    assert policies(read(SERVICE + PLAIN + "ambassador_id: [blue]\n")) == ()
