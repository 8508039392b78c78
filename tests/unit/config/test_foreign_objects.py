"""Objects and files of other programs are passed over; what looks like a rule is not."""

import json
from pathlib import Path

import pytest
from rules import document, findings, read_rules

from canary_mw.config.ambassador.kinds import EDGE_STACK_KINDS
from canary_mw.config.document import Document
from canary_mw.config.foreign_objects import may_hold_rules
from canary_mw.config.parser import RuleSet, parse
from canary_mw.control.sources.file import FileSource


def crd(api_version: str, kind: str, name: str = "other") -> str:
    return f"---\napiVersion: {api_version}\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n  ref: {{name: x}}\n"


def names(rules: RuleSet) -> list[str]:
    return [mapping.name for mapping in rules.mappings]


def listed(texts: dict[str, str], previous: RuleSet | None = None) -> RuleSet:
    """The rules of a directory with these files."""
    documents = [Document(text, f"rules/{name}", listed=True) for name, text in texts.items()]
    return parse(documents, previous=previous)


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("serving.knative.dev/v1beta1", "DomainMapping"),
        ("iamauthenticator.k8s.aws/v1alpha1", "IAMIdentityMapping"),
        ("lambda.services.k8s.aws/v1alpha1", "EventSourceMapping"),
        ("apigatewayv2.services.k8s.aws/v1alpha1", "APIMapping"),
        ("keycloak.crossplane.io/v1alpha1", "RoleMapping"),
        ("example.com/v1", "MappingPolicy"),
        ("example.com/v1", "mappings"),
        ("gateway.getambassador.io/v1alpha1", "Filter"),
        ("gateway.getambassador.io/v1alpha1", "WebApplicationFirewall"),
        ("apps/v1", "Deployment"),
        ("kustomize.config.k8s.io/v1beta1", "Kustomization"),
        ("kubeflow.org/v1", "Host"),
        ("v1", "Module"),
    ],
)
def test_an_object_of_another_group_is_passed_over_in_silence(api_version: str, kind: str) -> None:
    rules = read_rules(crd(api_version, kind) + document())
    assert names(rules) == ["a"]
    assert rules.diagnostics == ()


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("ambassador.io/v3alpha1", "Mapping"),
        ("getambassador.com/v2", "Mapping"),
        ("getambasador.io/v2", "Maping"),
        ("getambassadr.io/v2", "Host"),
        ("Getambassador.io/v2", "Mapping"),
        ("GETAMBASSADOR.IO/v2", "Module"),
        ("Ambassador/v1", "TLSContext"),
        ("example.com/v1", "Mapping"),
        ("example.com/v1", "mapping"),
        ("v1", "Mapping"),
        ("v2", "MAPPING"),
        ("getambassador.io/v2", "mapping"),
        ("getambassador.io/v2", "HOST"),
        ("getambassador.io/v2", "DomainMapping"),
        ("getambassador.io/v2", "filter"),
    ],
)
def test_a_mapping_of_another_group_and_a_misspelt_group_or_kind_are_reported(api_version: str, kind: str) -> None:
    rules = read_rules(crd(api_version, kind) + document())
    assert names(rules) == ["a"]
    errors = {found.code for found in rules.diagnostics if found.severity == "error"}
    assert errors in ({"unknown-version"}, {"unknown-kind"}, {"unknown-version", "unknown-kind"})


@pytest.mark.parametrize("version", ["v1beta2", "v1", "v2", "v3alpha1"])
@pytest.mark.parametrize("kind", sorted(EDGE_STACK_KINDS))
def test_a_kind_of_edge_stack_gets_a_notice_in_each_version(kind: str, version: str) -> None:
    rules = read_rules(crd(f"getambassador.io/{version}", kind) + document())
    assert names(rules) == ["a"]
    assert findings(rules.diagnostics) == [("notice", "kind-ignored", 2)]
    assert rules.diagnostics[0].message == f"{kind} other: a kind of Edge Stack: ignored"


@pytest.mark.parametrize(
    "text",
    [
        "kind: pipeline\nname: default\nsteps: []\n",
        "kind: Service\nmetadata: {name: a}\nport: 80\n",
        "name: shop\nservices: {web: {image: a}}\n",
        "prefix: /shop\nservice: {type: ClusterIP}\n",
        "apiVersion: v2\nname: shop\nversion: 0.1.0\n",
        "resources: [a.yaml]\npatches: []\n",
    ],
)
def test_an_object_without_apiversion_or_kind_is_passed_over_if_nothing_in_it_is_ours(text: str) -> None:
    rules = read_rules(text + document())
    assert names(rules) == ["a"]
    assert rules.diagnostics == ()


@pytest.mark.parametrize(
    ("lost", "code"),
    [
        (("apiVersion",), "no-api-version"),
        (("kind",), "unknown-kind"),
        (("apiVersion", "kind"), "unknown-kind"),
        (("apiVersion", "kind", "name"), "unknown-kind"),
    ],
)
def test_a_rule_that_lost_what_says_what_it_is_is_reported(lost: tuple[str, ...], code: str) -> None:
    lines = [line for line in document().splitlines(keepends=True) if not line.startswith(lost)]
    rules = read_rules("".join(lines) + document("b"))
    assert code in [found.code for found in rules.diagnostics]
    in_spec = "---\nspec: {prefix: /a/, service: a}\n"
    assert [found.code for found in read_rules(in_spec).diagnostics if found.severity == "error"] == ["unknown-kind"]


@pytest.mark.parametrize("kind", ["Maping", "mapping", "Mappings", "host", "module"])
def test_a_kind_that_is_nearly_one_of_ours_is_reported_without_apiversion(kind: str) -> None:
    codes = [found.code for found in read_rules(f"kind: {kind}\nname: a\n").diagnostics]
    assert codes == ["no-api-version", "unknown-kind"]


# Files beside the rules

FILES = {
    "kustomization.yaml": "resources: [rules.yaml]\nconfigMapGenerator:\n- name: rules\n  files: [rules.yaml]\n",
    "kustomize.yaml": "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [rules.yaml]\n",
    "Chart.yaml": "apiVersion: v2\nname: shop\ndescription: Ambassador Mappings\nversion: 0.1.0\n",
    "values.yaml": "name: 5\nmetadata: x\non: true\nservice:\n  type: ClusterIP\n1: a\n",
    "values-prod.yaml": "# apiVersion: getambassador.io/v2\nmappings: {shop: {weight: 20%}}\n",
    "Makefile": "apply:\n\tkubectl apply -f mapping.yaml # a Mapping of ambassador\n",
    "LICENSE": "Apache License: 2.0\n\n  [the text]: of it\n",
    "README": "# Mappings\n\nThe Mappings of the shop, for Ambassador: see below.\n",
    "CODEOWNERS": "* @shop\n",
    "Vagrantfile": 'Vagrant.configure("2") do |config|\n  config.vm.box = "a"\nend\n',
    "docker-compose.yaml": "x: &x {a: b}\nservices:\n  web: {<<: *x, image: !own a}\n",
    "package-lock.json": json.dumps({"packages": {f"p{number}": {"version": "1"} for number in range(60_000)}}),
    "broken.yaml": "a: b: c\n",
    "template.yaml": "{{- if .Values.x }}\na: {{ .Values.a }}\n{{- end }}\n",
    "dashboard.json": json.dumps({"panels": [{"mappings": [], "title": "ambassador"}]}, indent=1),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_program_beside_the_rules_is_no_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "rules.yaml").write_text(document())
    (tmp_path / name).write_text(FILES[name])
    rules = parse(FileSource(tmp_path).load())
    assert names(rules) == ["a"]
    assert rules.diagnostics == ()


def test_a_license_that_is_not_utf_8_is_no_error_either(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(document())
    (tmp_path / "LICENSE").write_bytes("© 2024".encode("latin-1"))
    assert parse(FileSource(tmp_path).load()).diagnostics == ()


@pytest.mark.parametrize(
    "text",
    [
        document().replace("kind: Mapping\n", ""),
        document().replace("apiVersion: getambassador.io/v2\n", ""),
        document().replace("getambassador.io", "ambasador.io"),
        document().replace("kind", "kin").replace("apiVersion", "apiversion"),
        document() + "a: b: c\n",
        document().replace("prefix", "\tprefix"),
        json.dumps({"apiVersion": "getambassador.io/v2", "kind": "Maping"}),
        json.dumps({"kind": "List", "apiVersion": "v1", "items": [{"kind": "Mapping", "apiVersion": "x"}]}),
        json.dumps({"data": {"a": json.dumps({"apiVersion": "getambassador.io/v2", "kind": "Host"})}}) + "]",
        'getambassador.io/config="cut off',
        "metadata: {annotations: {getambassador.io/config: [}}\n",
    ],
)
def test_a_file_with_a_line_of_a_rule_is_read(text: str) -> None:
    rules = listed({"good.yaml": document("good"), "rules.yaml": text})
    assert "good" in names(rules)
    assert any(found.file == "rules/rules.yaml" for found in rules.diagnostics)


def test_a_file_whose_group_and_kind_come_from_variables_is_read() -> None:
    text = document().replace("getambassador.io/v2", "${GROUP}/v2").replace("Mapping", "$KIND")
    documents = [Document(document("good"), "good.yaml"), Document(text, "rules.yaml", listed=True)]
    assert names(parse(documents, environ={"GROUP": "getambassador.io", "KIND": "Mapping"})) == ["good", "a"]


CUT = (
    "apiVer",
    "---\n",
    "apiVersion: geta",
    "apiVersion: getambassador.io/",
    "kind: [",
    "kind: Map",
    "metadata:",
)


@pytest.mark.parametrize("cut", CUT)
def test_a_file_that_had_rules_stays_one_of_ours_when_it_is_cut_off(cut: str) -> None:
    before = listed({"a.yaml": document("a"), "b.yaml": document("b")})
    after = listed({"a.yaml": document("a"), "b.yaml": cut}, before)
    emptied = cut == "---\n"
    assert names(after) == (["a"] if emptied else ["a", "b"])
    assert bool(after.diagnostics) is not emptied
    again = listed({"a.yaml": document("a"), "b.yaml": cut + "#"}, after)
    assert names(again) == names(after)


def test_where_no_file_holds_rules_each_one_is_reported() -> None:
    rules = listed({"README": "The rules: are not here: yet\n", "Makefile": "all:\n\techo\n"})
    assert {found.file for found in rules.diagnostics} == {"rules/README", "rules/Makefile"}


def test_a_file_that_is_named_by_its_path_is_read_whatever_it_holds(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(document())
    (tmp_path / "notes").write_text("a: b: c\n")
    rules = parse(FileSource(tmp_path / "rules.yaml", tmp_path / "notes").load())
    assert [found.code for found in rules.diagnostics] == ["yaml-syntax"]


# ConfigMaps


def config_map(**data: str) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}, "data": data}) + "\n"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("nginx.conf", "# for ambassador and its Mapping\nserver { listen 80; }\n"),
        ("pipeline", "# Mapping of fields\ninput { beats { port => 5044 } }\n"),
        ("config.yaml", "# ambassador\nmapping: Mapping\nfield: [broken\n"),
        ("setup.sh", f"kubectl apply -f - <<END\n{document()}END\n"),
        ("README.md", f"```yaml\n{document()}```\n"),
        ("inner.yaml", config_map(**{"a.conf": "Mapping"})),
        ("kafka.properties", "sasl.kerberos.principal.to.local.rules=DEFAULT"),
    ],
)
def test_a_config_map_of_another_program_is_passed_over(key: str, value: str) -> None:
    rules = read_rules(config_map(**{key: value}) + document())
    assert names(rules) == ["a"]
    assert rules.diagnostics == ()


@pytest.mark.parametrize("key", ["rules.yaml", "rules.yml", "rules.json", "rules"])
def test_a_config_map_with_rules_is_read(key: str) -> None:
    assert names(read_rules(config_map(**{key: document(), "other.conf": document("b")}))) == ["a"]


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion:" * 20_000,
        "apiVersion: " + "amb" * 100_000,
        "kind" + " " * 300_000,
        "kind:" + "\n" * 300_000,
        "\n" * 300_000 + "prefix",
        "{" * 300_000,
        "getambassador.io/config" * 20_000,
        "\\" * 300_000,
    ],
    ids=lambda text: text[:12].strip(),
)
def test_the_search_for_rules_takes_no_more_steps_than_the_text_has_characters(text: str) -> None:
    """A search that went back and forth would run into the timeout of the tests."""
    may_hold_rules(text)
