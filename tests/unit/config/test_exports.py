"""Documents as the API server gives them out: `kubectl get -o yaml`, in any version that it converts them to."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from rules import chosen, document, findings, get, one, read_rules

from canary_mw.config.document import Document
from canary_mw.config.parser import RuleSet
from canary_mw.config.reader import read
from canary_mw.config.yaml.loader import MAX_BYTES
from canary_mw.routing.table import RouteTable
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.upstream import HealthCheck

Json = dict[str, Any]

CHECKS = [{"health_check": {"http": {"path": "/up", "add_request_headers": {"x-a": {"value": "1"}}}}, "interval": "2s"}]
# One Mapping in each version, as Emissary's conversion writes it.
V3ALPHA1: Json = {
    "ambassador_id": ["default"],
    "hostname": "*",
    "prefix": "/shop/",
    "service": "https://shop:8443",
    "regex_headers": {"gray": ".*"},
    "query_parameters": {"v": "2"},
    "add_request_headers": {"x-a": {"value": "1", "v2Representation": "string"}, "x-b": {"value": "2"}},
    "add_response_headers": {"x-c": {"value": "3", "append": False}},
    "remove_request_headers": ["x-gone"],
    "cors": {"origins": ["https://a", "https://b"], "v2CommaSeparatedOrigins": True},
    "labels": {"shop": [{"group": [{"generic_key": {"value": "a", "v2Shorthand": True}}]}]},
    "health_checks": CHECKS,
    "stats_name": "shop_stats",
    "v2BoolHeaders": ["gray"],
    "v2ExplicitTLS": {"tls": "bool:true", "serviceScheme": ""},
}
V2: Json = {
    "ambassador_id": ["--apiVersion-v3alpha1-only--default"],
    "prefix": "/shop/",
    "service": "shop:8443",
    "tls": True,
    "headers": {"gray": True},
    "query_parameters": {"v": "2"},
    "add_request_headers": {"x-a": "1", "x-b": {"value": "2"}},
    "add_response_headers": {"x-c": {"value": "3", "append": False}},
    "remove_request_headers": ["x-gone"],
    "cors": {"origins": "https://a,https://b"},
    "labels": {"shop": [{"group": ["a", {"generic_key": "b", "v3Key": "k"}]}]},
    "v3health_checks": CHECKS,
    "v3StatsName": "shop_stats",
}
SPECS = {"v3alpha1": V3ALPHA1, "v2": V2, "v1": V2}


def exported(version: str, name: str = "shop", kind: str = "Mapping", **spec: Any) -> Json:
    """One object with all that the API server and kubectl add to it."""
    spec = spec or SPECS[version]
    applied = {"apiVersion": f"getambassador.io/{version}", "kind": kind, "metadata": {"name": name}, "spec": spec}
    fields: Json = {"f:spec": {".": {}, **{f"f:{attribute}": {} for attribute in spec}}}
    manager = {"manager": "kubectl", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": fields}
    return {
        "apiVersion": f"getambassador.io/{version}",
        "kind": kind,
        "metadata": {
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(applied) + "\n"},
            "creationTimestamp": "2024-01-19T00:11:43Z",
            "finalizers": None,
            "generation": 2,
            "labels": {"app": "shop"},
            "managedFields": [{"apiVersion": f"getambassador.io/{version}", "time": "2024-01-19T00:11:43Z", **manager}],
            "name": name,
            "namespace": "default",
            "ownerReferences": [{"kind": "Shop", "controller": True}],
            "resourceVersion": "1234567",
            "selfLink": f"/apis/getambassador.io/{version}/namespaces/default/mappings/{name}",
            "uid": "01b3ddea-24d7-45c6-a05a-64386f1b9588",
        },
        "spec": spec,
        "status": {"state": "Running"},
    }


def listed(*items: Json, kind: str = "List", version: str = "v1") -> Json:
    return {"apiVersion": version, "items": list(items), "kind": kind, "metadata": {"resourceVersion": ""}}


def facts(rules: RuleSet) -> Mapping:
    """The only Mapping of rules without any finding beyond what has no effect yet."""
    assert [found for found in rules.diagnostics if found.code != "no-effect-yet"] == []
    (mapping,) = rules.mappings
    return mapping


@pytest.mark.parametrize("written", [json.dumps, yaml.safe_dump, lambda each: yaml.safe_dump(each, width=10_000)])
@pytest.mark.parametrize("version", SPECS)
@pytest.mark.parametrize("wrapped", [lambda each: each, listed, lambda each: listed(listed(each))])
def test_an_exported_mapping_is_read_as_it_was_written(version: str, wrapped: Any, written: Any) -> None:
    mapping = facts(read_rules(written(wrapped(exported(version)))))
    assert (mapping.name, mapping.prefix, mapping.host.kind) == ("shop", "/shop/", "any")
    assert mapping.service.text == "https://shop:8443"
    assert [str(each) for each in (*mapping.conditions, *mapping.query)] == ["gray present", "v = 2"]
    assert [(each.name, each.append) for each in mapping.add_request_headers] == [(b"x-a", True), (b"x-b", True)]
    assert [(each.name, each.append) for each in mapping.add_response_headers] == [(b"x-c", False)]
    assert mapping.remove_request_headers == (b"x-gone",)
    assert mapping.cors is not None
    assert mapping.cors.origins == frozenset((b"https://a", b"https://b"))
    endpoints = mapping.options.endpoints
    assert endpoints is not None
    assert endpoints.health_checks == (HealthCheck(b"/up", headers=((b"x-a", b"1"),), interval=2.0),)


@pytest.mark.parametrize("version", SPECS)
def test_an_answer_of_the_api_server_itself_is_read(version: str) -> None:
    """Items of a typed list have neither kind nor apiVersion."""
    item = {key: value for key, value in exported(version).items() if key not in ("kind", "apiVersion")}
    text = json.dumps(listed(item, kind="MappingList", version=f"getambassador.io/{version}"))
    assert facts(read_rules(text)).name == "shop"


def test_an_export_of_all_kinds_and_versions_is_taken_as_one() -> None:
    items = [exported(version, f"shop-{version}") for version in SPECS]
    ids = {"ambassador_id": ["--apiVersion-v3alpha1-only--default"]}
    items += [
        exported("v2", "ambassador", "Module", **ids, config={"cluster_request_timeout_ms": 900}),
        exported("v2", "inner", "TLSContext", **ids, sni="inner.test"),
        exported("v2", "h", "Host", **ids),
        exported("v2", "shop-tls", **{**V2, "tls": "inner"}),
    ]
    rules = read_rules(yaml.safe_dump(listed(*items)))
    assert [found.message for found in rules.diagnostics if found.severity != "notice"] == []
    assert [mapping.name for mapping in rules.mappings] == ["shop-v3alpha1", "shop-v2", "shop-v1", "shop-tls"]
    assert {mapping.timeout_ms for mapping in rules.mappings} == {900}
    assert rules.mappings[-1].options.tls is not None


@pytest.mark.parametrize("items", [None, []])
def test_an_export_of_nothing_is_no_error(items: Any) -> None:
    assert read_rules(json.dumps({**listed(), "items": items})).diagnostics == ()


def test_the_text_of_an_annotation_of_kubectl_is_not_read() -> None:
    service = exported("v2", "shop", "Service")
    inner = {"metadata": {"annotations": {"getambassador.io/config": document("inner")}}}
    service["apiVersion"] = "v1"
    service["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/last-applied-configuration": json.dumps(inner),
        "getambassador.io/config": document("outer"),
    }
    assert [mapping.name for mapping in read_rules(yaml.safe_dump(listed(service))).mappings] == ["outer"]


@pytest.mark.parametrize("version", ["v0", "v1", "v2"])
def test_a_mapping_that_had_no_host_in_v3alpha1_matches_every_host_with_the_same_notice(version: str) -> None:
    rules = read_rules(document(version=version, host="_skip_mapping_with_empty_host_"))
    assert findings(rules.diagnostics) == [("notice", "no-hostname", 7)]
    assert chosen(RouteTable.build(rules.mappings), get("/a/", {"host": "any.com"})) == "a"


@pytest.mark.parametrize(
    "more", [{"version": "v3alpha1"}, {"version": "v2", "host_regex": "true"}], ids=["v3alpha1", "a regex"]
)
def test_the_mark_of_the_conversion_is_a_host_where_the_conversion_writes_none(more: Any) -> None:
    assert one(document(host="_skip_mapping_with_empty_host_", **more)).host.text == "_skip_mapping_with_empty_host_"


def test_converted_health_checks_have_their_findings_on_their_line() -> None:
    broken = read_rules(document(v3health_checks="[{health_check: {http: {path: up}}}]"))
    assert findings(broken.diagnostics) == [("error", "bad-value", 7)]
    grpc = read_rules(document(v3health_checks="[{health_check: {grpc: {}}}]"))
    assert findings(grpc.diagnostics) == [("notice", "no-effect-yet", 7)]


@pytest.mark.parametrize("attribute", ["v3health_checks", "v3StatsName"])
def test_what_only_the_conversion_to_v2_writes_is_unknown_in_v3alpha1(attribute: str) -> None:
    rules = read_rules(document(version="v3alpha1", hostname="'*'", **{attribute: "x"}))
    assert findings(rules.diagnostics) == [("warning", "unknown-field", 8)]


# Lists that are too large for one document

COUNT = 70


class Indented(yaml.SafeDumper):
    """Writes the items of a list two columns in, as many tools do."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)


def in_yaml(each: Json) -> str:
    return str(yaml.safe_dump(each, sort_keys=False))


def in_yaml_indented(each: Json) -> str:
    return str(yaml.dump(each, Dumper=Indented, sort_keys=False))


def in_json(each: Json) -> str:
    return json.dumps(each, indent=4)


WRITERS = [in_yaml, in_yaml_indented, in_json]


def large(write: Callable[[Json], str], frame: Json | None = None, changed: str = "") -> str:
    """A List of `COUNT` Mappings m0, m1 and so on; the service of m1 may be changed."""
    item = exported("v3alpha1", "NAME")
    # A few large items take less time to read than many of the usual size.
    item["metadata"]["annotations"]["note"] = "x" * 16_000
    one = write({**listed(item), **(frame or {})})
    json_list = one.startswith("{")
    begin = one.index("items") + one[one.index("items") :].index("\n") + 1
    end = one.index("\n    ]" if json_list else "\nkind: List\n" if "\nkind: List\n" in one else "\nmetadata:")
    items = [one[begin:end].replace("NAME", f"m{number}") for number in range(COUNT)]
    items[1] = items[1].replace("shop:8443", changed or "shop:8443")
    return one[:begin] + (",\n" if json_list else "\n").join(items) + one[end:]


@pytest.mark.parametrize("write", WRITERS)
def test_a_list_of_any_size_is_read_item_by_item(write: Callable[[Json], str]) -> None:
    text = large(write)
    assert len(text) > MAX_BYTES
    reading = read(Document(text, "rules.yaml"))
    assert reading.diagnostics == ()
    assert [resource.name for resource in reading.resources] == [f"m{number}" for number in range(COUNT)]
    lines = text.split("\n")
    for resource in (reading.resources[0], reading.resources[35], reading.resources[-1]):
        assert "getambassador.io/v3alpha1" in "".join(lines[resource.line - 1 : resource.line + 1])
        assert str(resource.name) in lines[resource.lines["name"] - 1]
        assert "/shop/" in lines[resource.lines["prefix"] - 1]
    small = read(Document(write(listed(exported("v3alpha1", "m0"))), "rules.yaml")).resources[0]
    assert reading.resources[0].spec == small.spec
    assert reading.resources[0].lines["spec"] - small.lines["spec"] == reading.resources[0].last_line - small.last_line


@pytest.mark.parametrize("write", WRITERS)
def test_an_item_of_a_large_list_is_in_error_alone(write: Callable[[Json], str]) -> None:
    broken = large(write).replace('"m35"', '"m35" x').replace("name: m35\n", "name: m35: x\n")
    reading = read(Document(broken, "rules.yaml"))
    assert len(reading.resources) == COUNT - 1
    (error,) = reading.diagnostics
    assert error.code == "yaml-syntax"
    assert "m35" in "".join(broken.split("\n")[(error.line or 0) - 3 : error.line])


def test_an_unchanged_item_of_a_large_list_is_not_read_again() -> None:
    before = read(Document(large(in_yaml), "rules.yaml"))
    after = read(Document(large(in_yaml, changed="new:1"), "rules.yaml"), cache=before.cache)
    same = [new.spec is old.spec for new, old in zip(after.resources, before.resources, strict=True)]
    assert same == [True, False, *[True] * (COUNT - 2)]


@pytest.mark.parametrize(
    "frame",
    [
        {"kind": "Lost"},
        {"apiVersion": "example.com/v1"},
        {"apiVersion": 1},
        {"kind": None},
        {"kind": "List", "a": "\x1b"},
    ],
)
@pytest.mark.parametrize("write", WRITERS)
def test_a_large_document_that_is_no_list_is_refused(write: Callable[[Json], str], frame: Json) -> None:
    text = large(write, frame).replace('"\\e"', "\x1b").replace('"\\u001b"', "\x1b")
    assert [found.code for found in read(Document(text, "rules.yaml")).diagnostics] == ["too-large"]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "items:",
            "items:\n",
            "items:\n- a",
            "items:\n#\n- a\nb: [",
            "items:\n- a\n- b: [\nkind: List\napiVersion: v1: x",
        ),
        *('{\n "items": [', '{\n "items": [\n', '{\n "items": [\n  {', '{\n "items": [\n  {\n  }\n ]'),
    ],
)
def test_a_large_text_that_only_begins_like_a_list_is_refused(text: str) -> None:
    filler = "# " + "x" * MAX_BYTES + "\n"
    assert [found.code for found in read(Document(filler + text, "rules.yaml")).diagnostics] == ["too-large"]
