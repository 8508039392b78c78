"""The JSON Schema compared with the parser: both accept and reject the same documents."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft7Validator
from pydantic import BaseModel
from rules import document, read_rules

from canary_mw.cli.main import main
from canary_mw.config.ambassador.module import UNSUPPORTED, ModuleConfig
from canary_mw.config.ambassador.schema import MODELS, MappingV3
from canary_mw.config.ambassador.tls_context import TLSContext
from canary_mw.config.reference.attribute_doc import AttributeDoc
from canary_mw.config.reference.json_schema import document_schema
from canary_mw.config.reference.mapping import ATTRIBUTES
from canary_mw.config.reference.module import KEYS
from canary_mw.config.reference.services import (
    CONSUL_RESOLVER_ATTRIBUTES,
    LOG_SERVICE_ATTRIBUTES,
    TCP_MAPPING_ATTRIBUTES,
    TRACING_SERVICE_ATTRIBUTES,
)
from canary_mw.config.reference.tls_context import TLS_CONTEXT_ATTRIBUTES
from canary_mw.config.services.consul_resolver import ConsulResolverModel
from canary_mw.config.services.log_service import LogServiceModel
from canary_mw.config.services.tcp_mapping import TCPMappingModel
from canary_mw.config.services.tracing_service import TracingServiceModel

ROOT = Path(__file__).parent.parent.parent.parent
SCHEMA = document_schema()
VALIDATOR = Draft7Validator(SCHEMA)
EXAMPLES = sorted((*ROOT.glob("examples/**/*.yaml"), *ROOT.glob("k8s/**/*.yaml")))
EXAMPLES = [path for path in EXAMPLES if not {"helm", "chart"} & set(path.parts)]


def tls_context(name: str, **attributes: Any) -> str:
    """A TLSContext as YAML."""
    head = {"apiVersion": "getambassador.io/v3alpha1", "kind": "TLSContext", "name": name}
    return str(yaml.safe_dump({**head, **attributes}))


def documents(text: str) -> list[Any]:
    """The documents of a text, and those inside of annotations and ConfigMaps."""
    found = []
    for each in yaml.safe_load_all(text):
        if not isinstance(each, dict):
            continue
        inner = [(each.get("metadata") or {}).get("annotations", {}).get("getambassador.io/config")]
        data = (each.get("data") or {}) if each.get("kind") == "ConfigMap" else {}
        inner += [text for file, text in data.items() if file.endswith(".yaml")]
        found += [document for text in inner if text for document in documents(text)] + [each]
    return found


def wrong(text: str) -> list[str]:
    """Errors of the schema in the documents of a text."""
    return [error.message for each in documents(text) for error in VALIDATOR.iter_errors(each)]


def test_the_schema_is_one_of_draft_7() -> None:
    Draft7Validator.check_schema(SCHEMA)
    assert "$defs" not in json.dumps(SCHEMA)


def test_the_command_prints_it() -> None:
    outcome = CliRunner().invoke(main, ["schema"])
    assert outcome.exit_code == 0
    assert json.loads(outcome.output) == SCHEMA


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_all_examples_fulfil_it(path: Path) -> None:
    assert wrong(path.read_text("utf-8")) == []


def test_the_examples_hold_mappings_at_all() -> None:
    kinds = [each.get("kind") for path in EXAMPLES for each in documents(path.read_text("utf-8"))]
    assert kinds.count("Mapping") >= 8
    assert kinds.count("Service") >= 2


@pytest.mark.parametrize("group", ["getambassador.io", "ambassador"])
@pytest.mark.parametrize("version", [*MODELS])
@pytest.mark.parametrize("kind", ["Mapping", "Module"])
def test_every_version_is_right_flat_and_as_a_crd(group: str, version: str, kind: str) -> None:
    attributes = "{prefix: /a/, service: a}" if kind == "Mapping" else "{config: {merge_slashes: true}}"
    head = f"apiVersion: {group}/{version}\nkind: {kind}\n"
    assert wrong(f"{head}metadata: {{name: a, namespace: b, labels: {{x: y}}}}\nspec: {attributes}\n") == []
    flat = yaml.safe_dump(yaml.safe_load(attributes))
    assert wrong(f"{head}name: a\nnamespace: b\nmetadata_labels: {{variant: gray}}\n{flat}") == []
    assert wrong(head + flat) != [], "the name is missing"
    assert wrong(f"{head}name: a\nnovelty: 1\n{flat}") != []


def test_the_shapes_may_be_mixed() -> None:
    head = "apiVersion: getambassador.io/v2\nkind: Mapping\nname: a\nprefix: /a/\n"
    assert wrong(head + "spec: {service: a}\n") == []
    assert wrong(head + "spec: {rewrite: /}\n") != []


@pytest.mark.parametrize(
    "attributes",
    [
        {"weight": '"20"'},
        {"weight": "20.5"},
        {"weight": "null"},
        {"prefix": None},
        {"service": None},
        {"service": "8080"},
        {"Weight": "20"},
        {"case_sensitive": '"no"'},
        {"headers": "gray"},
        {"headers": "{gray: 5}"},
        {"regex_headers": "{gray: true}"},
        {"remove_request_headers": "{a: b}"},
        {"retry_policy": "{num_retries: 1}"},
        {"retry_policy": "{retry_on: never}"},
        {"retry_policy": "{retry_on: 5xx, num_retry: 1}"},
        {"regex_rewrite": "a"},
        {"redirect_response_code": 300},
        {"circuit_breakers": "[{priority: low}]"},
        {"cors": "{origin: a}"},
        {"add_request_headers": "{x: {valu: a}}"},
        {"load_balancer": "{policy: random}"},
    ],
    ids=str,
)
def test_what_is_wrong_for_the_reader_is_wrong_for_the_schema(attributes: dict[str, Any]) -> None:
    for version in ("v2", "v3alpha1"):
        text = document(version=version, **attributes)
        assert any(d.severity in ("error", "warning") for d in read_rules(text).diagnostics)
        assert wrong(text) != []


def test_shorthands_are_right_in_their_versions_only() -> None:
    for short in ({"headers": "{gray: true}"}, {"remove_request_headers": "x"}, {"add_request_headers": "{x: '1'}"}):
        assert wrong(document(version="v2", **short)) == []
        assert wrong(document(version="v3alpha1", **short)) != []
    assert wrong(document(version="v2", hostname="a.com")) != []
    assert wrong(document(version="v4")) != []


@pytest.mark.parametrize(
    ("config", "right"),
    [
        ("{merge_slashes: true, regex_max_size: 1, gzip: {}}", True),
        ("{merge_slashes: 1}", False),
        ("{novelty: 1}", False),
        ("{regex_max_size: 0}", False),
        ("{defaults: {novelty: 1}}", False),
        ("[]", False),
    ],
)
def test_a_module_is_checked_key_by_key(config: str, right: bool) -> None:
    text = f"apiVersion: getambassador.io/v2\nkind: Module\nname: ambassador\nconfig: {config}\n"
    assert (wrong(text) == []) is right


def test_documents_of_other_kinds_are_valid() -> None:
    assert wrong("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: []}\n") == []
    assert wrong("apiVersion: getambassador.io/v2\nkind: Host\nname: a\nspec: {hostname: b}\n") == []


@pytest.mark.parametrize("name", [*ATTRIBUTES])
def test_the_example_of_an_attribute_is_right_for_the_schema_and_the_reader(name: str) -> None:
    version = "v3alpha1" if name in MappingV3.model_fields else "v2"
    example = yaml.safe_load(ATTRIBUTES[name].example)
    assert [*example] == [name]
    given = {"name": "a", "prefix": "/a/", "service": "a", "hostname": "*"} if version == "v3alpha1" else {}
    given = given or {"name": "a", "prefix": "/a/", "service": "a"}
    text = yaml.safe_dump({"apiVersion": f"getambassador.io/{version}", "kind": "Mapping", **given, **example})
    assert wrong(text) == []
    rules = read_rules(text + "---\n" + tls_context("upstream-context"))
    assert len(rules.mappings) == 1
    assert not any(d.severity == "error" or d.code == "unknown-field" for d in rules.diagnostics)


@pytest.mark.parametrize("name", [*KEYS])
def test_the_example_of_a_key_of_the_module_is_right(name: str) -> None:
    example = yaml.safe_load(KEYS[name].example)
    assert [*example] == [name]
    head = {"apiVersion": "getambassador.io/v3alpha1", "kind": "Module", "name": "ambassador"}
    text = yaml.safe_dump({**head, "config": example})
    assert wrong(text) == []
    assert not any(d.severity != "notice" for d in read_rules(text).diagnostics)


@pytest.mark.parametrize("name", [*TLS_CONTEXT_ATTRIBUTES])
def test_the_example_of_an_attribute_of_a_tls_context_is_right(name: str) -> None:
    example = yaml.safe_load(TLS_CONTEXT_ATTRIBUTES[name].example)
    assert [*example] == [name]
    text = tls_context("a", **example)
    assert wrong(text) == []
    found = [(d.severity, d.code) for d in read_rules(text).diagnostics]
    assert [each for each in found if each[0] != "notice"] == (
        [("warning", "not-supported")] if name.endswith("_file") else []
    )
    assert wrong(tls_context("a", **example, novelty="1")) != []


# By kind: the model, the descriptions, and what a document needs besides one attribute.
SERVICES: dict[str, tuple[type[BaseModel], dict[str, AttributeDoc], dict[str, Any]]] = {
    "TCPMapping": (TCPMappingModel, TCP_MAPPING_ATTRIBUTES, {"port": 5672, "service": "broker:5672"}),
    "LogService": (LogServiceModel, LOG_SERVICE_ATTRIBUTES, {"service": "als:3000"}),
    "TracingService": (
        TracingServiceModel,
        TRACING_SERVICE_ATTRIBUTES,
        {"service": "zipkin:9411", "driver": "zipkin"},
    ),
    "ConsulResolver": (ConsulResolverModel, CONSUL_RESOLVER_ATTRIBUTES, {"datacenter": "dc1"}),
}
# What the examples refer to.
AROUND = f"""---
{tls_context("upstream-context")}
---
{tls_context("edge", hosts=["db.example.com"], secret="edge")}
---
apiVersion: getambassador.io/v3alpha1
kind: KubernetesEndpointResolver
name: endpoint
"""


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in SERVICES for name in SERVICES[kind][1]])
def test_the_example_of_an_attribute_of_a_service_is_right(kind: str, name: str) -> None:
    _, texts, required = SERVICES[kind]
    example = yaml.safe_load(texts[name].example)
    assert [*example] == [name]
    head = {"apiVersion": "getambassador.io/v3alpha1", "kind": kind, "name": "a", **required, **example}
    text = yaml.safe_dump(head)
    assert wrong(text) == []
    found = [(each.severity, each.code) for each in read_rules(text + AROUND).diagnostics]
    assert not any(severity == "error" or code == "unknown-field" for severity, code in found)
    # The schema is for an editor: what a document must have is missing at once.
    assert wrong(yaml.safe_dump({each: head[each] for each in ("apiVersion", "kind", "name")})) != []
    assert wrong(yaml.safe_dump({**head, "novelty": 1})) != []


@pytest.mark.parametrize("kind", [*SERVICES])
def test_every_attribute_of_a_service_has_a_description(kind: str) -> None:
    model, texts, _ = SERVICES[kind]
    assert model.model_fields.keys() == texts.keys()


def test_every_attribute_and_every_key_has_a_description() -> None:
    assert TLSContext.model_fields.keys() == TLS_CONTEXT_ATTRIBUTES.keys()
    assert {name for model in MODELS.values() for name in model.model_fields} == ATTRIBUTES.keys()
    assert ModuleConfig.model_fields.keys() == KEYS.keys()
    properties = SCHEMA["definitions"]["Module"]["properties"]["config"]["properties"]
    assert properties.keys() == KEYS.keys() | UNSUPPORTED
    for name in ("MappingV3alpha1", "Mapping"):
        for attribute in SCHEMA["definitions"][name]["properties"]["spec"]["properties"].values():
            assert attribute["description"].endswith(".")
