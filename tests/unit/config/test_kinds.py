"""Every kind that Ambassador reads from its API has an effect, and what has none says what is in its place."""

import pytest
from rules import read_rules

from canary_mw.config.ambassador.kinds import INSTEAD, REQUIRED

API = "---\napiVersion: getambassador.io/v3alpha1\n"
MAPPING = API + "kind: Mapping\nname: shop\nhostname: '*'\nprefix: /shop/\nservice: shop\n"
# The kinds of Ambassador 1.x, each with a document.
KINDS = {
    "AuthService": "name: a\nauth_service: auth\n",
    "ConsulResolver": "name: a\naddress: consul:8500\ndatacenter: dc1\n",
    "KubernetesEndpointResolver": "name: a\n",
    "KubernetesServiceResolver": "name: a\n",
    "LogService": "name: a\nservice: als\ndriver: http\ndriver_config: {}\ngrpc: true\nprotocol_version: v3\n",
    "Mapping": "name: a\nhostname: '*'\nprefix: /a/\nservice: a\n",
    "Module": "name: ambassador\nconfig: {server_name: edge}\n",
    "RateLimitService": "name: a\nservice: limiter\nprotocol_version: v3\n",
    "TCPMapping": "name: a\nport: 5672\nservice: broker:5672\n",
    "TLSContext": "name: a\nsecret: certificates\n",
    "TracingService": "name: a\nservice: zipkin\ndriver: zipkin\n",
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_document_of_each_kind_has_an_effect(kind: str) -> None:
    before, rules = read_rules(MAPPING), read_rules(f"{MAPPING}{API}kind: {kind}\n{KINDS[kind]}")
    assert rules.diagnostics == ()
    assert (rules.mappings, rules.shared) != (before.mappings, before.shared)


@pytest.mark.parametrize("kind", ["LogService", "RateLimitService", "TracingService", "TCPMapping", "AuthService"])
def test_an_attribute_without_effect_is_told_so_once_and_for_all(kind: str) -> None:
    (found,) = read_rules(f"{MAPPING}{API}kind: {kind}\n{KINDS[kind]}stats_name: x\n").diagnostics
    assert (found.severity, found.code) == ("notice", "no-effect")
    assert " yet" not in found.message


def test_what_is_not_needed_says_what_is_in_its_place() -> None:
    assert INSTEAD.keys() == REQUIRED.keys()
    assert not any(" yet" in text for text in INSTEAD.values())
