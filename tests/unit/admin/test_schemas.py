"""The schemas of the answers, by their types."""

from typing import Any

import pytest
from admin_examples import EXAMPLES
from jsonschema import Draft202012Validator

from canary_mw.admin.models.counts import FiguresAnswer
from canary_mw.admin.models.explain import ExplainAnswer, ExplainForm
from canary_mw.admin.models.operations import AboutAnswer, EndpointsAnswer, ReloadsAnswer, TrafficAnswer
from canary_mw.admin.models.release import ReleaseAnswer
from canary_mw.admin.models.releases import Overview
from canary_mw.admin.models.rules import RulesAnswer
from canary_mw.admin.schemas import schema_of

MODELS: dict[str, Any] = {
    "overview": Overview,
    "release": ReleaseAnswer,
    "rules": RulesAnswer,
    "explain": ExplainAnswer,
    "explain form": ExplainForm,
    "traffic": TrafficAnswer,
    "endpoints": EndpointsAnswer,
    "reloads": ReloadsAnswer,
    "about": AboutAnswer,
    "figures": FiguresAnswer,
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_has_the_fields_of_its_type(name: str) -> None:
    components: dict[str, Any] = {}
    schema = {**schema_of(MODELS[name], components), "components": {"schemas": components}}
    Draft202012Validator(schema).validate(EXAMPLES[name])


def test_a_field_is_described_as_the_docstring_does_that_has_it_first() -> None:
    components: dict[str, Any] = {}
    schema_of(ReleaseAnswer, components)
    properties = components["ReleaseAnswer"]["properties"]
    assert properties["live_on"]["description"] == "workers that have its newest version in force."
    assert properties["requests"]["description"] == "drawn requests of the window."
    assert properties["now"]["description"] == "when the answer was made."


def test_a_type_that_is_not_of_json_has_no_schema() -> None:
    with pytest.raises(AssertionError, match="no schema for"):
        schema_of(bytes, {})
