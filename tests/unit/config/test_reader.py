import json
import re
import textwrap
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canary_mw.config.annotations import go_unquote
from canary_mw.config.document import Diagnostic, Document
from canary_mw.config.reader import Reading, read
from canary_mw.config.resource import Resource

KEY = "getambassador.io/config"

MAPPING = """\
apiVersion: getambassador.io/v3alpha1
kind: Mapping
name: shop
prefix: /shop/
service: shop-stable
"""

CRD = """\
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata:
  name: shop
spec:
  prefix: /shop/
  service: shop-stable
"""

SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: svc-gray
  namespace: default
  annotations:
    getambassador.io/config: |
      ---
      apiVersion: ambassador/v0
      kind:  Mapping
      name:  svc1_mapping
      prefix: /svc/
      {rule}
spec: {{selector: {{app: testservice}}, ports: [{{port: 8080, name: service-gray, targetPort: http-api}}]}}
"""

WEIGHT_RULE = "service: service-gray  weight: 20"
HEADER_RULE = "service: service-gray  headers:\n        gray: true"


def go_quote(text: str) -> str:
    """Go's %q: printable text as it is, everything else escaped."""
    short = {"\a": "a", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", "\v": "v", "\\": "\\", '"': '"'}
    return '"' + "".join(f"\\{short[char]}" if char in short else _go_char(char) for char in text) + '"'


def _go_char(char: str) -> str:
    if char == " " or unicodedata.category(char)[0] in "LMNPS":
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def rules(text: str, environ: Mapping[str, str] = {}) -> Reading:
    return read(Document(text, "rules.yaml"), environ=environ)


def only(text: str, environ: Mapping[str, str] = {}) -> Resource:
    reading = rules(text, environ)
    assert reading.diagnostics == ()
    assert reading.complete
    (resource,) = reading.resources
    return resource


def refusal(text: str) -> Diagnostic:
    reading = rules(text)
    assert not reading.complete
    (diagnostic,) = reading.diagnostics
    assert (diagnostic.severity, diagnostic.file) == ("error", "rules.yaml")
    return diagnostic


def names(reading: Reading) -> list[str | None]:
    return [resource.name for resource in reading.resources]


def indented(text: str, blanks: int) -> str:
    return textwrap.indent(text, " " * blanks)


def annotated(text: str, kind: str = "Service", version: str = "v1") -> str:
    head = (
        f"apiVersion: {version}\nkind: {kind}\nmetadata:\n  name: shop\n  namespace: sales\n  labels: {{app: shop}}\n"
    )
    return f"{head}  annotations:\n    {KEY}: |\n{indented(text, 6)}"


# What a document is


def test_a_flat_document_gives_its_attributes_and_their_lines() -> None:
    resource = only(MAPPING + "headers:\n  gray: true\n")
    assert resource == Resource(
        api_version="getambassador.io/v3alpha1",
        kind="Mapping",
        name="shop",
        namespace="default",
        spec={"prefix": "/shop/", "service": "shop-stable", "headers": {"gray": True}},
        labels={},
        line=1,
        last_line=7,
        lines_inside={
            "apiVersion": 1,
            "kind": 2,
            "name": 3,
            "prefix": 4,
            "service": 5,
            "headers": 6,
            "headers.gray": 7,
        },
        parent=None,
    )


def test_the_crd_shape_gives_the_same_values_as_the_flat_one() -> None:
    flat, crd = only(MAPPING), only(CRD)
    assert (flat.kind, flat.name, flat.namespace, flat.spec) == (crd.kind, crd.name, crd.namespace, crd.spec)
    assert (crd.lines["name"], crd.lines["prefix"], crd.lines["service"]) == (4, 6, 7)


def test_top_level_attributes_override_those_of_spec_and_metadata() -> None:
    text = (
        "metadata: {name: inner, namespace: a}\nspec: {weight: 1, prefix: /p/}\nname: outer\nnamespace: b\nweight: 2\n"
    )
    resource = only(text)
    assert (resource.name, resource.namespace, resource.spec) == ("outer", "b", {"weight": 2, "prefix": "/p/"})
    assert resource.lines["weight"] == 5


def test_status_and_generation_are_no_attributes() -> None:
    assert only(MAPPING + "generation: 7\nstatus: {state: Running}\n").spec == only(MAPPING).spec


@pytest.mark.parametrize("text", ["metadata_labels: {variant: gray}\n", "metadata: {labels: {variant: gray}}\n"])
def test_labels_come_from_either_place(text: str) -> None:
    assert only(MAPPING + text).labels == {"variant": "gray"}


def test_the_old_api_group_is_read_as_the_new_one() -> None:
    assert only("apiVersion: ambassador/v1\nkind: Mapping\nname: a\n").api_version == "getambassador.io/v1"


def test_a_document_without_kind_or_name_is_passed_on() -> None:
    resource = only("prefix: /a/\n")
    assert (resource.api_version, resource.kind, resource.name) == (None, None, None)


def test_unknown_kinds_of_our_groups_and_misspelt_groups_are_passed_on() -> None:
    text = "apiVersion: getambassador.io/v2\nkind: Host\nname: h\n---\napiVersion: getambasador.io/v2\nkind: mapping\n"
    assert [resource.kind for resource in rules(text).resources] == ["Host", "mapping"]


def test_a_json_text_is_read() -> None:
    value = {"apiVersion": "getambassador.io/v2", "kind": "Mapping", "name": "shop", "prefix": "/é/", "weight": 20}
    assert only(json.dumps(value, ensure_ascii=False, indent="\t")).spec == {"prefix": "/é/", "weight": 20}


# Splitting


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("name: a\n---\nname: b\n", [(1, 1), (3, 3)]),
        ("---\nname: a\n---  # next\n\n# why\nname: b\n\n# end\n", [(2, 2), (6, 8)]),
        ("\ufeff---\r\nname: a\r\n---\r\nname: b\r\n", [(2, 2), (4, 4)]),
        ("\ufeffname: a\n---\n# nothing\n \n---\nname: b", [(1, 1), (6, 6)]),
        ("%YAML 1.1\n---\nname: a\n...\n---\n---\nname: b\n", [(3, 3), (7, 7)]),
        ("name: a\rprefix: /\r---\rname: b\r", [(1, 2), (4, 4)]),
        ("--- {name: a}\n---\n--- \nname: b\n", [(1, 1), (4, 4)]),
    ],
)
def test_documents_are_split_and_keep_the_lines_of_the_file(text: str, places: list[tuple[int, int]]) -> None:
    reading = rules(text)
    assert names(reading) == ["a", "b"]
    assert [(resource.line, resource.last_line) for resource in reading.resources] == places


TWO = f"---\n{MAPPING}---\n{MAPPING.replace('shop', 'cart')}nam: [\n"
HOLDERS: dict[str, Callable[[str], str]] = {
    "a file": lambda text: text,
    "an annotation in JSON": lambda text: json.dumps(_service(text)),
    "an annotation in a quoted scalar": lambda text: (
        f"apiVersion: v1\nkind: Service\nmetadata:\n  annotations:\n    {KEY}: {json.dumps(text)}\n"
    ),
    "an annotation of an item of a List": lambda text: json.dumps(
        {"apiVersion": "v1", "kind": "List", "items": [_service(text)]}
    ),
    "a value of a ConfigMap": lambda text: json.dumps(_config_map({"rules.yaml": text})),
    "an annotation in a value of a ConfigMap": lambda text: json.dumps(_config_map({"a": json.dumps(_service(text))})),
    "an annotations file": lambda text: f'{KEY}={go_quote(text)}\na.io/note="x"\n',
    "an annotations file in a ConfigMap": lambda text: json.dumps(_config_map({"a": f"{KEY}={go_quote(text)}\n"})),
}


def _service(text: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "annotations": {KEY: text}}}


def _config_map(data: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "data": data}


@pytest.mark.parametrize("line_end", ["\r\n", "\r"], ids=["CRLF", "CR"])
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_text_with_other_line_ends_is_read_as_with_line_feeds_wherever_it_stands(holder: str, line_end: str) -> None:
    """The holder has line feeds, except for the file, which is the text."""
    plain = rules(HOLDERS[holder](TWO))
    other = rules(HOLDERS[holder](TWO.replace("\n", line_end)))
    assert names(other) == ["shop"]
    assert [found.mapping for found in other.diagnostics] == ["cart"]
    assert (other.resources, other.diagnostics) == (plain.resources, plain.diagnostics)


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_byte_order_mark_before_a_text_is_no_part_of_it(holder: str) -> None:
    plain, marked = rules(HOLDERS[holder](TWO)), rules(HOLDERS[holder]("\ufeff" + TWO))
    assert (marked.resources, marked.diagnostics) == (plain.resources, plain.diagnostics)


def test_line_ends_in_the_value_of_a_variable_move_no_line() -> None:
    resource = only("name: a\n$MORE\nweight: 3\n", {"MORE": "prefix: /a/\r\nservice: b\r"})
    assert [resource.lines[name] for name in ("prefix", "service", "weight")] == [2, 2, 3]


@pytest.mark.parametrize(
    "text", ["", "\n", "---\n", "# only a comment\n---\n...\n", "\ufeff", "%YAML 1.1\n", "\ufeff \x85\u2028"]
)
def test_a_text_without_content_gives_nothing_and_is_complete(text: str) -> None:
    assert rules(text) == Reading((), (), True, {})


def test_a_byte_order_mark_alone_in_a_document_is_no_content() -> None:
    assert names(rules("---\n\ufeff\n---\nname: a\n")) == ["a"]


# Manifests


@pytest.mark.parametrize(
    ("kind", "version"), [("Service", "v1"), ("Ingress", "networking.k8s.io/v1"), ("Ingress", "extensions/v1beta1")]
)
def test_the_documents_of_an_annotation_take_from_their_object(kind: str, version: str) -> None:
    resource = only(annotated(MAPPING, kind, version))
    assert (resource.parent, resource.namespace, resource.labels) == (f"{kind}/shop", "sales", {"app": "shop"})
    assert (resource.line, resource.last_line, resource.lines["service"]) == (9, 13, 13)


def test_what_an_annotation_document_says_itself_wins() -> None:
    resource = only(annotated(MAPPING + "namespace: own\nmetadata_labels: {a: b}\n"))
    assert (resource.namespace, resource.labels) == ("own", {"a": "b"})


def test_only_the_exact_annotation_counts() -> None:
    copy = json.dumps({"metadata": {"annotations": {KEY: MAPPING}}})
    last = f"kubectl.kubernetes.io/last-applied-configuration: '{copy}'"
    assert rules(f"apiVersion: v1\nkind: Service\nmetadata:\n  annotations:\n    {last}\n").resources == ()


def test_inside_an_annotation_every_kind_is_passed_on() -> None:
    assert only(annotated("apiVersion: v1\nkind: Service\nname: odd\n")).kind == "Service"


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: v1\nkind: Service\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, annotations: null}\n",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: 5}\n",
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {annotations: {other: x}}\n",
        "apiVersion: v1\nkind: Namespace\n",
        "apiVersion: serving.knative.dev/v1\nkind: Service\n",
        "apiVersion: apps/v1\nkind: DeploymentList\nitems: [1]\n",
        "apiVersion: v1\nkind: List\nitems: []\n",
        "apiVersion: v1\nkind: ConfigMap\n",
        "apiVersion: v1\nkind: ConfigMap\ndata: {nginx.conf: 'server { listen 80; }', n: 5}\n",
    ],
)
def test_other_kubernetes_objects_are_ignored_silently(text: str) -> None:
    reading = rules(text)
    assert (reading.resources, reading.diagnostics) == ((), ())


def test_a_list_gives_its_items_with_their_own_lines() -> None:
    items = "".join(f"- {indented(text, 2).lstrip()}" for text in (CRD, annotated(MAPPING)))
    reading = rules(f"apiVersion: v1\nkind: List\nitems:\n{items}")
    assert [(item.name, item.line, item.last_line) for item in reading.resources] == [("shop", 4, 10), ("shop", 19, 23)]


def test_the_items_of_a_typed_list_may_leave_kind_and_version_to_it() -> None:
    text = "apiVersion: getambassador.io/v2\nkind: MappingList\nitems:\n- metadata: {name: a}\n- kind: Host\n"
    reading = rules(text)
    assert [(item.api_version, item.kind) for item in reading.resources] == [
        ("getambassador.io/v2", "Mapping"),
        ("getambassador.io/v2", "Host"),
    ]


def test_a_broken_item_of_a_list_does_not_affect_the_others() -> None:
    reading = rules("apiVersion: getambassador.io/v2\nkind: MappingList\nitems:\n- text\n- {on: x}\n- {name: a}\n")
    assert names(reading) == ["a"]
    assert [(found.code, found.line) for found in reading.diagnostics] == [("not-a-map", 4), ("bad-key", 5)]


def test_a_config_map_gives_what_its_values_hold() -> None:
    text = f"apiVersion: v1\nkind: ConfigMap\ndata:\n  a.yaml: |\n{indented(MAPPING, 4)}  b.yaml: |\n"
    reading = rules(text + indented(annotated(MAPPING), 4))
    assert [(item.name, item.namespace, item.line) for item in reading.resources] == [
        ("shop", "default", 5),
        ("shop", "sales", 19),
    ]


def test_a_config_map_may_hold_an_annotations_file() -> None:
    text = f"apiVersion: v1\nkind: ConfigMap\ndata:\n  annotations: |\n    {KEY}={go_quote(MAPPING)}\n"
    assert only(text).line == 5


def test_a_config_map_inside_a_config_map_is_refused() -> None:
    inner = f"apiVersion: v1\nkind: ConfigMap\ndata:\n  a: |\n{indented(MAPPING, 4)}"
    found = refusal(f"apiVersion: v1\nkind: ConfigMap\ndata:\n  a: |\n{indented(inner, 4)}")
    assert (found.code, found.line) == ("nested-config-map", 5)


# Annotations of a downward-API volume


def test_an_annotations_file_gives_the_documents_of_its_one_key() -> None:
    values = {"a.io/note": 'say "hi"\n', KEY: f"---\n{MAPPING}---\n{MAPPING}", "z": "\u3000é🙂"}
    text = "\n".join(f"{key}={go_quote(value)}" for key, value in values.items())
    reading = rules(text)
    assert names(reading) == ["shop", "shop"]
    assert {(item.line, item.last_line, item.lines["prefix"]) for item in reading.resources} == {(2, 2, 2)}
    assert rules('app="shop"\n').resources == ()


def test_a_finding_in_an_annotations_file_names_the_line_in_the_text() -> None:
    found = refusal(f"a={go_quote('x')}\n\n{KEY}={go_quote(MAPPING + 'name: twice')}\n")
    assert (found.code, found.line, found.mapping) == ("duplicate-key", 3, "shop")
    assert found.message == "`name` is written twice, first on line 3 (line 6 of the text in it)"


@pytest.mark.parametrize(
    "value", ['"a', '"', '"a"b"', '"\\q"', '"\\xff"', '"\\ud800"', '"\\U00110000"', '"\\777"', '"a" ']
)
def test_a_value_that_go_did_not_write_is_reported(value: str) -> None:
    found = refusal(f"{KEY}={value}")
    assert (found.code, found.line) == ("bad-annotation-file", 1)


def test_every_escape_of_go_is_understood() -> None:
    assert go_unquote(r'"\a\b\f\n\r\t\v\\\"\x41\101\xc3\xa9\u00e9\U0001f642"') == '\a\b\f\n\r\t\v\\"AAéé🙂'
    with pytest.raises(ValueError, match="quotes"):
        go_unquote("plain")


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(deadline=None)
def test_go_quoting_round_trips(text: str) -> None:
    assert go_unquote(go_quote(text)) == text


# Variables


@pytest.mark.parametrize("rune", ["00110000", "7fffffff", "f6000000", "0000d800"])
def test_a_rune_that_is_no_character_is_reported_as_a_broken_file(rune: str) -> None:
    reading = rules(f'{KEY}="\\U{rune}"\n')
    assert [(found.code, found.line) for found in reading.diagnostics] == [("bad-annotation-file", 1)]


@pytest.mark.parametrize("text", ["\u2028", "\u2029", "\x85"], ids=["LS", "PS", "NEL"])
def test_a_line_break_that_only_yaml_knows_moves_no_line(text: str) -> None:
    resource = only(f"# a{text}{text}\n" + MAPPING.replace("name:", f"# c{text}\nname:") + "weight: 20\n")
    assert (resource.line, resource.last_line) == (2, 8)
    assert (resource.lines["name"], resource.lines["weight"]) == (5, 8)
    reading = rules(f"# a{text}\n{MAPPING}{text}[\n")
    assert [found.line for found in reading.diagnostics] == [7]


def test_variables_are_expanded_and_unset_ones_stay() -> None:
    text = "name: $NAME-${NAME}\nservice: ${UNSET}$1$$\nprefix: ^/x$\n"
    resource = only(text, {"NAME": "shop"})
    assert (resource.name, resource.spec) == ("shop-shop", {"service": "${UNSET}$1$$", "prefix": "^/x$"})


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("---\n---\nname: $A-${B}\nservice: $A\n", [("A", 3), ("B", 3), ("A", 4)]),
        ("# $A\nname: a # $B\n  # $C\nprefix: ^/x$\nmore: $1 ${2} $$ ${} $-\n", [("B", 2)]),
        ("apiVersion: apps/v1\nkind: Deployment\ncommand: $A\n---\nname: $B\n", [("B", 5)]),
        ("a: $A\nb: [\n", [("A", 1)]),
        ('x="$X"\n' + KEY + "=" + go_quote("name: a\nservice: $A"), [("A", 2)]),
        (annotated("name: a\nservice: $A\n"), [("A", 10)]),
    ],
)
@pytest.mark.parametrize("environ", [{}, {"A": "a", "B": "b\nc: d"}])
def test_the_places_of_variables_in_documents_with_rules_are_known(
    text: str, variables: list[tuple[str, int]], environ: dict[str, str]
) -> None:
    assert list(rules(text, environ).variables) == variables


def test_variables_reach_into_manifests_and_annotations_files_once() -> None:
    environ = {"A": "$B", "B": "wrong"}
    assert only(annotated("name: a\nservice: $A\n"), environ).spec["service"] == "$B"
    assert only(f"{KEY}={go_quote('name: $A')}", environ).name == "$B"


def test_a_variable_with_several_lines_does_not_move_the_lines_of_the_file() -> None:
    resource = only("---\nname: a\n$MORE\nweight: 3\n", {"MORE": "prefix: /a/\nservice: b"})
    assert resource.spec == {"prefix": "/a/", "service": "b", "weight": 3}
    assert [resource.lines[name] for name in ("name", "prefix", "service", "weight")] == [2, 3, 3, 4]


# What is refused


@pytest.mark.parametrize(("rule", "key"), [(WEIGHT_RULE, "weight"), (HEADER_RULE, "headers")])
def test_the_lost_newline_of_the_printed_rules_is_explained(rule: str, key: str) -> None:
    found = refusal(SERVICE.format(rule=rule))
    assert (found.code, found.line, found.mapping) == ("yaml-syntax", 13, "svc1_mapping")
    assert found.hint == f"`{key}:` belongs on a line of its own"


@pytest.mark.parametrize(
    "rule", ["service: service-gray\n      weight: 20", "service: g\n      headers:\n        gray: true"]
)
def test_the_corrected_printed_rules_are_read(rule: str) -> None:
    resource = only(SERVICE.format(rule=rule))
    assert (resource.name, resource.api_version, resource.line) == ("svc1_mapping", "getambassador.io/v0", 9)


@pytest.mark.parametrize(
    ("text", "code", "line", "words"),
    [
        ('a: b\nservice: "x"  weight: 1\n', "yaml-syntax", 2, "`service:` and `weight:`"),
        ("a: b\n  c: d\n", "yaml-syntax", 2, "`key:` stands where none can"),
        ("a: b\nfoo\nc: d\n", "yaml-syntax", 3, "not `key: value`"),
        ("a: b\nhostname: *\nc: d\n", "yaml-syntax", 2, "begins with `*`"),
        ("a: *x\n", "yaml-syntax", 1, "anchor that is not there"),
        ("a: &\n", "yaml-syntax", 1, "begins with `&`"),
        ("a: &x 1\nb: &x 2\n", "yaml-syntax", 2, "set twice"),
        ("a: &x [*x]\n", "yaml-syntax", 1, "inside of what it names"),
        ("a: b\n--- {c: d}\n", "yaml-syntax", 2, "second document"),
        ("a: b\n\tc: d\n", "yaml-syntax", 2, "tab"),
        ("a: @x\n", "yaml-syntax", 1, "must be quoted"),
        ("a: 1\nb: 'x\nc: d\n", "yaml-syntax", 3, "it begins on line 2"),
        ("a: 1\nb: [x\nc: d\n", "yaml-syntax", 3, "it begins on line 2"),
        ("a: {b: c\nd: e\n", "yaml-syntax", 2, "it begins on line 1"),
        ("a: b\n- c\n", "yaml-syntax", 2, "does not fit the map"),
        ("- a\nb: c\n", "yaml-syntax", 2, "does not fit the list"),
        ("a: - b\n", "yaml-syntax", 1, "no list can begin"),
        ("a: 1\nb: \x01\n", "yaml-syntax", 2, "control character"),
        ("a: 1\nb: \ud800\n", "yaml-syntax", 2, "not UTF-8"),
        ("a: !<x\n", "yaml-syntax", 1, "tag"),
        ("a: !!bool maybe\n", "yaml-syntax", 1, "does not fit its tag"),
        ("a: 1\nb: .inf\n", "bad-number", 2, "`.inf`"),
        ("a: [1, -.Inf]\n", "bad-number", 1, "`-.Inf`"),
        ("a: {b: .NaN}\n", "bad-number", 1, "`.NaN`"),
        ("a: !!int 1.5\n", "bad-number", 1, "`1.5`"),
        ("a: " + "1_" * 5_000, "bad-number", 1, "number"),
        ("a: " + "1" * 10_000, "bad-number", 1, "number"),
        ("a: !!float x\n", "bad-number", 1, "`x`"),
        ("a: !!int [1]\n", "bad-number", 1, "number"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]\n", "bad-tag", 2, "`!!python/object/apply:os.system`"),
        ("a: !!timestamp 2020-01-01\n", "bad-tag", 1, "`!!timestamp`"),
        ("a: !own x\n", "bad-tag", 1, "`!own`"),
        ("a: !!map x\n", "bad-tag", 1, "`!!map`"),
        ("%TAG !a! x\n" * 17 + "--- {a: b}\n", "bad-tag", 1, "`%TAG`"),
        ("a: 1\nb: 2\na: 3\n", "duplicate-key", 3, "`a` is written twice, first on line 1"),
        ("a:\n  b: 1\n  b: 2\n", "duplicate-key", 3, "`b` is written twice, first on line 2"),
        ("a: 1\n<<: {b: 2}\n", "merge-key", 2, "`<<`"),
        ("a: 1\n!!merge x: {b: 2}\n", "bad-tag", 2, "`!!merge`"),
        ("text\n", "not-a-map", 1, "the document"),
        ("# x\n- a\n", "not-a-map", 2, "the document"),
        ("name: a\nspec: x\n", "not-a-map", 2, "`spec`"),
        ("name: a\nmetadata: [x]\n", "not-a-map", 2, "`metadata`"),
        ("name: a\non: x\n", "bad-key", 2, "`on` is read as the boolean true"),
        ("name: a\n5: x\n", "bad-key", 2, "`5` is read as the number 5"),
        ("spec:\n  a: 1\n  5: x\n", "bad-key", 3, "5"),
        ("a: 1\n? [x]\n: y\n", "bad-key", 2, "list or map"),
        ("kind: Mapping\nname: 20\n", "wrong-type", 2, "`name` must be a text"),
        ("kind: [a]\nname: b\n", "wrong-type", 1, "`kind` must be a text"),
        ("name: a\nmetadata_labels:\n  x: true\n", "wrong-type", 3, "`x` must be a text"),
        ("apiVersion: v1\nkind: List\nitems: x\n", "wrong-type", 3, "`items` must be a list"),
        (f"apiVersion: v1\nkind: Service\nmetadata:\n  annotations:\n    {KEY}: {{}}\n", "bad-annotation", 5, KEY),
        ("apiVersion: v1\nkind: Service\nmetadata:\n  annotations: x\n", "not-a-map", 4, "`annotations`"),
        ("apiVersion: v1\nkind: ConfigMap\ndata: x\n", "not-a-map", 3, "`data`"),
    ],
)
def test_a_broken_document_is_named_by_line_and_cause(text: str, code: str, line: int, words: str) -> None:
    found = refusal(text)
    assert (found.code, found.line) == (code, line)
    assert words in found.message
    assert "\n" not in str(found)


@pytest.mark.parametrize("broken", ["a: b: c", "text", "a: 1\na: 2", "a: !x y", "<<: {}", "a: [", "n: .nan"])
def test_neighbours_of_a_broken_document_are_read(broken: str) -> None:
    text = f"name: a\n---\n{broken}\n---\nname: b\n"
    assert names(rules(text)) == names(rules(annotated(text))) == names(rules(f"{KEY}={go_quote(text)}")) == ["a", "b"]
    assert not rules(text).complete


@pytest.mark.parametrize("style", ["plain", "quoted", "folded"])
def test_a_finding_in_a_text_that_has_no_lines_of_its_own_is_at_the_value(style: str) -> None:
    value = {
        "plain": "n: .inf".replace(": ", ":\u00a0"),
        "quoted": '"name: a\\nname: b"',
        "folded": ">\n      a\n      b",
    }
    text = f"apiVersion: v1\nkind: Service\nmetadata:\n  annotations:\n    {KEY}: {value[style]}\n"
    found = refusal(text)
    assert found.line == 5
    assert re.search(r"\(line \d of the text in it\)$", found.message)


MIB = 1 << 20
BOMBS: dict[str, tuple[str, str]] = {
    "brackets": ("[" * (MIB - 10), "too-deep"),
    "brackets that crash the C loader": ("a: " + "[" * 400_000, "too-deep"),
    "braces": ("{a: " * (MIB // 4 - 10), "too-deep"),
    "dashes": ("- " * (MIB // 2 - 10), "too-deep"),
    "question marks": ("? " * (MIB // 2 - 10), "too-deep"),
    "indentation": ("".join(" " * depth + "a:\n" for depth in range(1400)), "too-deep"),
    "an alias in the depth": ("a: &a " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 20 + "*a" + "]" * 20, "too-deep"),
    "many aliases": ("a: &a x\nb: [" + "*a, " * 65 + "]", "too-many-aliases"),
    "doubling": (
        "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 32)),
        "too-many-aliases",
    ),
    "recursion": ("a: &a {b: [*a]}", "yaml-syntax"),
    "merges": ("a: &a {x: 1}\nb: {<<: [*a, *a]}", "merge-key"),
    "size": ("name: a\n" + "#" * MIB, "too-large"),
    "size in bytes": ("name: a\n#" + "é" * (MIB // 2), "too-large"),
    "digits": ("a: " + "1" * (MIB - 10), "bad-number"),
    "hexadecimal digits": ("a: 0x" + "f" * (MIB - 10), "bad-number"),
    "digits of an exponent": ("a: 1e" + "1" * (MIB - 10), "bad-number"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_is_parsed(name: str) -> None:
    text, code = BOMBS[name]
    assert refusal(text).code == code


@pytest.mark.parametrize("name", ["brackets that crash the C loader", "doubling", "merges"])
def test_a_bomb_inside_a_value_is_refused_as_well(name: str) -> None:
    text, code = BOMBS[name]
    assert refusal(annotated(text)).code == code
    assert refusal(f"{KEY}={go_quote(text)}").code == code
    inside = f"apiVersion: v1\nkind: ConfigMap\ndata:\n  a: |\n    # kind: Mapping\n{indented(text, 4)}"
    assert refusal(inside).code == code


def test_what_is_within_the_limits_is_read() -> None:
    depth = "[" * 49 + "]" * 49
    assert only(f"name: a\nb: {depth}\n").name == "a"
    assert refusal(f"name: a\nb: [{depth}]\n").code == "too-deep"
    aliases = "a: &a {x: 1}\nb: [" + ", ".join(["*a"] * 64) + "]\n"
    assert len(only(aliases).spec["b"]) == 64
    assert only(f"name: a\n{'#' * (MIB - 9)}\n").name == "a"


# The cache


def test_an_unchanged_document_is_not_read_again() -> None:
    first = rules(f"{MAPPING}---\n{CRD}---\n{annotated(MAPPING)}")
    again = read(Document(f"# new\n---\n{CRD}---\nname: b\n---\n{annotated(MAPPING)}", "other"), cache=first.cache)
    assert again.resources[0].spec is first.resources[1].spec
    assert again.resources[2].spec is first.resources[2].spec
    assert [resource.line for resource in again.resources] == [3, 11, 21]


def test_the_cache_changes_nothing_but_the_work() -> None:
    text = f"{MAPPING}---\na: b: c\n---\n{annotated(MAPPING + 'name: b')}"
    first = rules(text)
    moved = read(Document("\n\n---\n" + text, "moved.yaml"), cache=first.cache)
    assert moved.diagnostics == read(Document("\n\n---\n" + text, "moved.yaml")).diagnostics
    assert [found.line for found in moved.diagnostics] == [10, 25]
    assert {found.file for found in moved.diagnostics} == {"moved.yaml"}
    assert moved.resources == read(Document("\n\n---\n" + text, "moved.yaml")).resources


def test_the_cache_drops_removed_documents_and_distinguishes_variables() -> None:
    first = read(Document("name: $N\n---\nname: b\n", "f"), environ={"N": "a"})
    second = read(Document("name: $N\n", "f"), environ={"N": "c"}, cache=first.cache)
    assert (len(first.cache), names(second), len(second.cache)) == (2, ["c"], 1)


def test_the_same_text_below_another_service_is_another_document() -> None:
    first = rules(annotated(MAPPING))
    other = read(Document(annotated(MAPPING).replace("name: shop\n  n", "name: other\n  n"), "f"), cache=first.cache)
    assert other.resources[0].parent == "Service/other"


# Any text

FRAGMENTS = [
    "---\n",
    "\n",
    "  ",
    "- ",
    "? ",
    ": ",
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "<<: ",
    "!!str ",
    "!x ",
    "|\n",
    ">\n",
    "'",
]
FRAGMENTS += [
    '"',
    "\t",
    "#",
    "%TAG ",
    "...",
    "\r\n",
    "\ufeff",
    "\x85",
    "\u2028",
    "$X",
    "a: 1",
    "name: a\n",
    "kind: List\n",
]
FRAGMENTS += [
    "kind: ConfigMap\napiVersion: v1\ndata:\n",
    "items:\n",
    "kind: Service\napiVersion: v1\n",
    f"{KEY}=",
    f"{KEY}: ",
]
FRAGMENTS += [
    "metadata:\n",
    "  annotations:\n",
    "spec:\n",
    "Mapping",
    "1:1",
    "0x_",
    "2020-01-01",
    MAPPING,
    annotated(MAPPING),
]
TEXTS = st.one_of(st.text(), st.text(st.characters()), st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join))


def _within(resource: Resource, last: int) -> bool:
    return 1 <= resource.line <= resource.last_line <= last


@given(TEXTS, st.sampled_from([{}, {"X": "a: 1\nb: [\n"}]))
@settings(deadline=None, max_examples=300)
def test_reading_never_raises_and_is_complete_unless_it_says_why(text: str, environ: dict[str, str]) -> None:
    reading = rules(text, environ)
    assert reading.complete == (not any(found.severity == "error" for found in reading.diagnostics))
    assert all(found.line is not None and found.line >= 1 for found in reading.diagnostics)
    again = read(Document(text, "rules.yaml"), environ=environ, cache=reading.cache)
    assert (again.resources, again.diagnostics) == (reading.resources, reading.diagnostics)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(st.characters(codec="ascii"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["prefix", "weight", "headers", "cors"]), JSON), st.integers(0, 3))
@settings(deadline=None)
def test_attributes_come_out_as_they_were_written(spec: dict[str, Any], before: int) -> None:
    text = "# x\n" * before + json.dumps(
        {"apiVersion": "getambassador.io/v2", "kind": "Mapping", "spec": spec}, indent=1
    )
    resource = only(text)
    assert resource.spec == spec
    assert _within(resource, text.count("\n") + 1)
    assert resource.line == before + 1
