"""Errors, rules and decisions cross processes: multiprocessing and worker pools pickle what they pass on."""

import inspect
import pickle
from typing import TypeVar

import pytest

from canary_mw import Decision, Mapping, RequestHead, RouteTable, decide, exceptions, explain
from canary_mw.exceptions import CanaryError, ConfigError, UpstreamError
from canary_mw.inspection.explanation_json import explanation_json

T = TypeVar("T")
RULES = """\
apiVersion: getambassador.io/v3alpha1
kind: Mapping
name: shop
prefix: /shop/.*
prefix_regex: true
service: shop
"""
# Whatever is compiled when the rules are read has an attribute here.
ATTRIBUTES = {
    "no more": "",
    "header": "headers: {x-user: 'a'}",
    "header presence": "regex_headers: {x-user: '.*'}",
    "header regex": "regex_headers: {x-user: '[a-z]'}",
    "method": "method: GET|HEAD\nmethod_regex: true",
    "query": "regex_query_parameters: {user: '[0-9]+'}",
    "host": "hostname: eu.shop.example",
    "host suffix": "hostname: '*.shop.example'",
    "host prefix": "hostname: 'eu.shop.*'",
    "host regex": "host: 'EU[.].*'\nhost_regex: true",
    "rewrite": "regex_rewrite: {pattern: '/shop/(.*)', substitution: '/\\1'}",
    "redirect": "host_redirect: true\nregex_redirect: {pattern: '/shop/(.*)', substitution: '/\\1'}",
    "request headers": "add_request_headers: {x-from: {value: '%REQ(x-user)%'}, x-method: {value: '%REQ(:method)%'}}",
    "response headers": "add_response_headers: {x-from: {value: '%RESP(x-user):3%'}, x-time: {value: '%START_TIME%'}}",
    "CORS": "cors: {origins: ['https://shop.example'], methods: [GET]}",
    "load balancing": "load_balancer: {policy: ring_hash, header: x-user}",
    "retries": "retry_policy: {retry_on: 5xx, per_try_timeout: 1s}",
    "limits": "circuit_breakers: [{max_connections: 10}]",
}
HEAD = RequestHead("GET", "/shop/bag?user=1", [("host", "eu.shop.example"), ("x-user", "a")])


def errors() -> list[type[CanaryError]]:
    classes = [each for _, each in inspect.getmembers(exceptions, inspect.isclass)]
    return [each for each in classes if issubclass(each, CanaryError)]


def example(kind: type[CanaryError]) -> CanaryError:
    if issubclass(kind, ConfigError):
        return kind("it failed", file="shop.yaml", line=3, mapping="shop", hint="mend it")
    return kind("it failed", sent=True) if issubclass(kind, UpstreamError) else kind("it failed")


def copied(value: T) -> T:
    copy: T = pickle.loads(pickle.dumps(value))
    assert copy is not value
    return copy


@pytest.mark.parametrize("kind", errors())
def test_an_error_keeps_its_text_and_its_attributes(kind: type[CanaryError]) -> None:
    error = example(kind)
    copy = copied(error)
    assert type(copy) is kind
    assert (str(copy), copy.args, vars(copy)) == (str(error), error.args, vars(error))


def decision(attributes: str) -> Decision:
    found = decide(RouteTable.from_yaml(RULES + attributes), HEAD, 50.0)
    assert found is not None
    return found


def told(mapping: Mapping) -> object:
    """All that happens to a request by this Mapping alone."""
    table = RouteTable.build([mapping])
    return explanation_json(table, explain(table, HEAD))


@pytest.mark.parametrize("attributes", ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_a_mapping_is_equal_to_its_copy_and_routes_the_same(attributes: str) -> None:
    mapping = decision(attributes).mapping
    copy = copied(mapping)
    assert copy == mapping
    assert told(copy) == told(mapping)
    assert (copy.file, copy.line) == (mapping.file, mapping.line)


def test_a_decision_has_the_same_fields() -> None:
    original = decision("weight: 100\n")
    copy = copied(original)
    for name in Decision.__slots__:
        assert getattr(copy, name) == getattr(original, name), name


def test_a_decision_of_a_release_has_the_same_fields() -> None:
    gray = RULES.replace("name: shop", "name: gray") + "weight: 0\n"
    release = (
        "apiVersion: canary-mw/v1\nkind: GrayRelease\nname: r\ngray: {gray: 100}\nsticky: [{header: x-user}]\n"
        "propagate: {hosts: [pay, '*.shop.svc', 10.0.0.0/8], baggage: true}\n"
    )
    original = decide(RouteTable.from_yaml("---\n".join((RULES, gray, release))), HEAD, 1.0)
    copy = copied(original)
    assert original is not None
    assert copy is not None
    assert original.lane is not None
    for name in Decision.__slots__:
        assert getattr(copy, name) == getattr(original, name), name
    assert copy.lane is not None
    assert copy.lane.hosts("a.shop.svc", 80)
    assert not copy.lane.hosts("shop.svc", 80)
