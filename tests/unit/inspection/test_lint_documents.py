import pytest
from rules import document, findings, read_rules

from canary_mw.inspection.lint_documents import lint_documents


def found(text: str) -> list[tuple[str, str, int | None]]:
    return findings(tuple(lint_documents(read_rules(text))))


@pytest.mark.parametrize("version", ["v0", "v1", "v2"])
@pytest.mark.parametrize("attribute", ["headers", "query_parameters"])
@pytest.mark.parametrize(("value", "severity"), [("true", "notice"), ("yes", "notice"), ("false", "warning")])
def test_a_boolean_that_is_probably_a_value_is_reported_at_its_line(
    version: str, attribute: str, value: str, severity: str
) -> None:
    text = document("first") + document(version=version, **{attribute: f"\n  x: a\n  gray: {value}"})
    assert found(text) == [(severity, "unquoted-boolean", 15)]
    (finding,) = lint_documents(read_rules(text))
    assert finding.hint is not None
    assert 'gray: "' in finding.hint


def test_quoted_values_and_regexes_are_no_booleans() -> None:
    assert found(document(headers='{gray: "true", x: "false"}')) == []
    assert found(document(headers="{gray: true}", regex_headers='{gray: "a.*"}')) == []
    assert found(document(headers="{gray: true}", weight="x") + document("b")) == []


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n---\n", "kind: Service\napiVersion: v1\n"])
def test_no_mapping_at_all_is_an_error(text: str) -> None:
    assert found(text) == [("error", "no-mappings", 1)]


def test_no_mapping_beside_other_kinds_is_a_warning() -> None:
    host = "apiVersion: getambassador.io/v3alpha1\nkind: Host\nmetadata: {name: h}\nspec: {hostname: '*'}\n"
    assert found(host) == [("warning", "no-mappings", 1)]
    assert found(host + document("b")) == []


def test_no_mapping_is_not_reported_beside_the_error_that_says_why() -> None:
    assert found(document(weight="x")) == []


def test_where_all_mappings_are_for_another_id_the_hint_is_the_option() -> None:
    assert lint_documents(read_rules(document("b") + document(ambassador_id="other"), ambassador_id="third")) == []
    (finding,) = lint_documents(read_rules(document(ambassador_id="other"), ambassador_id="third"))
    assert (finding.code, finding.line) == ("no-mappings", 7)
    assert "--ambassador-id" in (finding.hint or "")
