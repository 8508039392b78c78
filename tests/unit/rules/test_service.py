import pytest

from canary_mw.exceptions import MappingError
from canary_mw.rules.service import parse_service
from canary_mw.rules.upstream import Origin


@pytest.mark.parametrize(
    ("text", "namespace", "label", "origin"),
    [
        ("svc", "default", "svc", Origin("http", "svc", 80)),
        (" Svc ", "default", "svc", Origin("http", "svc", 80)),
        ("svc:8080", "default", "svc:8080", Origin("http", "svc", 8080)),
        ("svc", "prod", "svc.prod", Origin("http", "svc.prod", 80)),
        ("svc:8080", "prod", "svc.prod:8080", Origin("http", "svc.prod", 8080)),
        ("svc.ns", "prod", "svc.ns", Origin("http", "svc.ns", 80)),
        ("localhost:9000", "prod", "localhost:9000", Origin("http", "localhost", 9000)),
        ("http://svc", "default", "http://svc", Origin("http", "svc", 80)),
        ("HTTPS://Svc:8443", "default", "https://svc:8443", Origin("https", "svc", 8443)),
        ("https://svc", "default", "https://svc", Origin("https", "svc", 443)),
        ("[::1]:8080", "prod", "[::1]:8080", Origin("http", "::1", 8080)),
        ("[::1]", "prod", "[::1]", Origin("http", "::1", 80)),
    ],
)
def test_a_service_is_read_as_emissary_reads_it(text: str, namespace: str, label: str, origin: Origin) -> None:
    service, problem = parse_service(text, namespace)
    assert (service.text, service.origin, problem) == (label, origin, None)


@pytest.mark.parametrize(
    ("text", "label", "port", "problem"),
    [
        ("svc:abc", "svc:abc", 80, "port 'abc' of service 'svc:abc' is not in 1..65535"),
        ("svc:99999", "svc:99999", 80, "port '99999' of"),
        ("svc:0", "svc:0", 80, "port '0' of"),
        pytest.param("svc:" + "1" * 5000, "svc:" + "1" * 5000, 80, "is not in 1..65535", id="no number for Python"),
        ("https://svc:٣", "https://svc:٣", 443, "port '٣' of"),
        ("svc:", "svc:", 80, "port '' of"),
        ("ftp://svc", "http://svc", 80, "scheme 'ftp' of the service is not http or https"),
        ("svc/path", "svc", 80, "service 'svc/path' holds more than scheme, name and port"),
        ("svc:8080?x", "svc:8080", 8080, "holds more than"),
    ],
)
def test_a_service_that_works_in_part_comes_with_its_problem(text: str, label: str, port: int, problem: str) -> None:
    service, found = parse_service(text)
    assert (service.text, service.origin.port) == (label, port)
    assert found is not None
    assert problem in found


@pytest.mark.parametrize(
    "text", ["", "http://", "/path", "user@host", "a b", "svc\tx", ":80", "[]:80", "a\nb", "a\x7fb"]
)
def test_a_service_without_a_host_is_refused(text: str) -> None:
    with pytest.raises(MappingError, match="names no host"):
        parse_service(text)


def test_a_service_has_names_for_the_command_line_the_most_specific_first() -> None:
    assert parse_service("https://svc")[0].names == ("https://svc", "svc:443", "svc")


def test_a_service_has_a_comment_for_via() -> None:
    assert parse_service("https://Svc:8443")[0].via_comment == b"(https://svc:8443)"
    assert parse_service("a(b)\\c")[0].via_comment == b"(abc)"
