"""Whatever is asked, the API answers with what it describes, and never with an error of its own."""

import asyncio
import json
from urllib.parse import urlencode

import pytest
from admin_client import GOOD, admin, fetch_app
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded_figures import NOW, evidence, recent, release_figures, steady

from canary_mw.admin.openapi import openapi

FIGURES = release_figures(
    steady(800, 3),
    steady(200, 6),
    evidence('{"stable": 80, "gray": 20}', stable=(8000, 7900, 20), gray=(2000, 1900, 60)),
    recent=(recent(NOW - 1),),
)
APP = admin(GOOD, read_figures=lambda: FIGURES, clock=lambda: NOW)
PATHS = [path for path, operations in openapi()["paths"].items() if "get" in operations and path != "/api/v1/events"]
TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["", "0", "-1", "1m", "1h", "live", "shop", "a", "/shop/", "http://[::1]:80/x?y", "x-gray: always", "{}"]
    ),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), TEXTS),
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=8,
)
QUIETLY = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


def parameters(path: str) -> list[str]:
    return [each["name"] for each in openapi()["paths"][path]["get"]["parameters"] if each["in"] == "query"]


@pytest.mark.parametrize("path", PATHS)
@QUIETLY
@given(data=st.data())
def test_any_query_has_an_answer(path: str, data: st.DataObject) -> None:
    names = st.sampled_from([*parameters(path), "json", "other"])
    query = data.draw(st.dictionaries(names, TEXTS))
    name = data.draw(TEXTS.filter(lambda text: text.isprintable() and "/" not in text)) if "{name}" in path else ""
    target = f"{path.replace('{name}', 'shop' if not name else urlencode({'': name})[1:])}?{urlencode(query)}"
    answer = asyncio.run(fetch_app(APP, target))
    # Evidence is for other pods: it takes a token.
    assert answer.status in (200, 400, 403, 404), answer.body
    value = json.loads(answer.body)
    assert (answer.status == 200) != ("error" in value and set(value) == {"error"})


@QUIETLY
@given(message=JSON | st.dictionaries(st.sampled_from("method url headers client cookies user session".split()), JSON))
def test_any_json_has_an_answer(message: object) -> None:
    body = json.dumps(message).encode()
    answer = asyncio.run(fetch_app(APP, "/api/v1/explain", "POST", body=body))
    assert answer.status in (200, 400), answer.body
