"""The files of examples/rules and examples/helm do what their comments say, and so do the rules of the blog."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from rules import get

from canary_mw.config.document import Diagnostic, Document
from canary_mw.config.parser import RuleSet, parse
from canary_mw.http.messages import RequestHead
from canary_mw.inspection.explanation import explain
from canary_mw.inspection.lint import lint
from canary_mw.routing.table import RouteTable

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
RULES = sorted((EXAMPLES / "rules").glob("*.yaml"))


def read(text: str) -> RuleSet:
    return parse([Document(text, "rules.yaml")])


def example(name: str) -> RouteTable:
    rules = read((EXAMPLES / "rules" / name).read_text("utf-8"))
    return RouteTable.build(rules.mappings, releases=rules.releases)


def shares(routes: RouteTable, head: RequestHead) -> dict[tuple[str, str] | None, float]:
    """(service, variant) -> percent."""
    return {
        (c.decision.mapping.service.text, c.decision.variant) if c.decision else None: c.percent
        for c in explain(routes, head).candidates
    }


STABLE, GRAY = ("service-stable", "stable"), ("service-gray", "gray")


def test_every_example_is_tested_here() -> None:
    names = {"ab-cookie.yaml", "header.yaml", "release.yaml", "testers-regex.yaml", "weight.yaml"}
    assert {file.name for file in RULES} == names


@pytest.mark.parametrize("file", RULES, ids=[file.name for file in RULES])
def test_an_example_has_no_findings_and_says_how_to_try_it(file: Path) -> None:
    text = file.read_text("utf-8")
    rules = read(text)
    routes = RouteTable.build(rules.mappings, releases=rules.releases)
    assert (*rules.diagnostics, *routes.diagnostics, *lint(routes)) == ()
    assert len(rules.mappings) == 2
    tried = re.search(r"^# Try it: canary-mw explain (\S+) GET (/\S*)", text, re.M)
    assert tried is not None
    assert EXAMPLES.parent / tried[1] == file
    assert routes.candidates(get(tried[2])) != ()


def test_one_request_in_five_goes_to_gray() -> None:
    assert shares(example("weight.yaml"), get("/svc/a")) == {GRAY: 20, STABLE: 80}


def test_a_release_keeps_each_user_in_one_version() -> None:
    routes = example("release.yaml")
    assert shares(routes, get("/basket/")) == {GRAY: 20, STABLE: 80}
    keys = [f"{number:022}" for number in range(1000)]
    release = routes.releases["basket-2026-11"]
    found = [shares(routes, get("/basket/", {"cookie": f"cmw_id={key}"})) for key in keys[:100]]
    variants = [release.variant_of(key) for key in keys]
    assert found == [{GRAY if variant == "gray" else STABLE: 100} for variant in variants[:100]]
    assert 150 < variants.count("gray") < 250
    assert release.document.fallback is not None


@pytest.mark.parametrize(("version", "service"), [("gray", GRAY), ("stable", STABLE)])
def test_testers_of_a_release_choose_their_version(version: str, service: tuple[str, str]) -> None:
    assert shares(example("release.yaml"), get("/basket/", {"x-version": version})) == {service: 100}


@pytest.mark.parametrize(("headers", "service"), [({"gray": "true"}, GRAY), ({"gray": "false"}, STABLE), ({}, STABLE)])
def test_the_header_sends_to_gray_if_it_is_true(headers: dict[str, str], service: tuple[str, str]) -> None:
    assert shares(example("header.yaml"), get("/svc/", headers)) == {service: 100}


@pytest.mark.parametrize(
    ("cookie", "service"),
    [
        ("ab=b", "service-b"),
        ("theme=dark; ab=b; lang=en", "service-b"),
        ("ab=b;lang=en", "service-b"),
        ("ab=a", "service-a"),
        ("xab=b", "service-a"),
        ("ab=bb", "service-a"),
        (None, "service-a"),
    ],
)
def test_the_cookie_decides_the_version_on_every_request(cookie: str | None, service: str) -> None:
    head = get("/shop/", {"cookie": cookie} if cookie else {})
    ((taken, percent),) = shares(example("ab-cookie.yaml"), head).items()
    assert taken is not None
    assert (taken[0], percent) == (service, 100)


@pytest.mark.parametrize(
    ("user", "service"),
    [
        ("ann@qa.example.com", GRAY),
        ("ann@example.com", STABLE),
        ("ann@qaXexample.com", STABLE),
        ("ann@qa.example.com.evil.org", STABLE),
        (None, STABLE),
    ],
)
def test_only_testers_see_gray(user: str | None, service: tuple[str, str]) -> None:
    head = get("/account/", {"x-user": user} if user else {})
    assert shares(example("testers-regex.yaml"), head) == {service: 100}


def rendered(values: dict[str, Any]) -> str:
    """The template as Helm fills it in: just the actions that it uses."""
    text = (EXAMPLES / "helm" / "service.yaml.tpl").read_text("utf-8")
    text = re.sub(r"\{\{-? ?/\*.*?\*/ ?-?\}\}\n?", "", text, flags=re.S)
    gray = values.get("gray") or {}
    weight = f"      weight: {gray['weight']}\n" if "weight" in gray else ""
    headers = "".join(f"        {name}: {str(value).lower()}\n" for name, value in gray.get("headers", {}).items())
    block = weight + (f"      headers:\n{headers}" if headers else "")
    text = re.sub(r" *\{\{- with \.Values\.gray \}\}\n.*\{\{- end \}\}\n(?=spec:)", block, text, flags=re.S)
    return re.sub(r"\{\{ \.(\S+) \}\}", lambda found: str(_looked_up(found[1], values)), text)


def _looked_up(path: str, values: dict[str, Any]) -> Any:
    found: Any = {"Values": values, "Release": {"Namespace": "shops"}}
    for name in path.split("."):
        found = found[name]
    return found


def chart(**changes: Any) -> str:
    values = yaml.safe_load((EXAMPLES / "helm" / "values.yaml").read_text("utf-8"))
    service = {**values["service"], **changes.pop("service", {})}
    return rendered({**values, "service": service, **changes})


def release(*charts: str) -> tuple[RouteTable, tuple[Diagnostic, ...]]:
    text = "---\n".join(charts)
    assert "{{" not in text
    rules = read(text)
    return RouteTable.build(rules.mappings), rules.diagnostics


STABLE_CHART = {"service": {"name": "shop-stable", "track": "stable"}, "gray": None}


def test_the_rendered_chart_divides_by_weight() -> None:
    routes, diagnostics = release(chart(**STABLE_CHART), chart())
    assert diagnostics == ()
    assert [m.name for m in routes.mappings] == ["shop-stable_mapping", "shop-gray_mapping"]
    assert shares(routes, get("/shop/a")) == {
        ("shop-gray.shops:8080", "gray"): 20,
        ("shop-stable.shops:8080", "stable"): 80,
    }


def test_the_rendered_chart_keeps_a_weight_of_0() -> None:
    routes, diagnostics = release(chart(**STABLE_CHART), chart(gray={"weight": 0}))
    assert diagnostics == ()
    assert shares(routes, get("/shop/a")) == {("shop-stable.shops:8080", "stable"): 100}


def test_the_rendered_chart_sends_by_header() -> None:
    routes, diagnostics = release(chart(**STABLE_CHART), chart(gray={"headers": {"gray": True}}))
    assert diagnostics == ()
    assert shares(routes, get("/shop/a", {"gray": "1"})) == {("shop-gray.shops:8080", "gray"): 100}
    assert shares(routes, get("/shop/a")) == {("shop-stable.shops:8080", "stable"): 100}


def blog(name: str, *rule: str) -> str:
    """A Service as the blog prints it, the lines of its rule from `service:` on left open."""
    lines = "".join(f"      {line}\n" for line in rule)
    return f"""\
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: default
  annotations:
    getambassador.io/config: |
      ---
      apiVersion: ambassador/v0
      kind:  Mapping
      name:  {name}_mapping
      prefix: /svc/
{lines}spec:
  selector:
    app: testservice
  ports:
  - port: 8080
    name: service-gray
    targetPort: http-api
"""


@pytest.mark.parametrize(
    ("rule", "lost"),
    [
        (("service: service-gray  weight: 20",), "weight"),
        (("service: service-gray  headers:", "  gray: true"), "headers"),
    ],
)
def test_the_rules_that_the_blog_prints_say_what_is_lost_and_where(rule: tuple[str, ...], lost: str) -> None:
    rules = read(blog("svc1", *rule))
    assert rules.mappings == ()
    (error,) = rules.diagnostics
    assert (error.severity, error.line, error.mapping) == ("error", 13, "svc1_mapping")
    assert error.hint == f"`{lost}:` belongs on a line of its own"
    assert str(error).startswith("rules.yaml:13: error ")


def test_the_repaired_rules_of_the_blog_route() -> None:
    stable = blog("stable", "service: service-stable")
    weighted = read(stable + "---\n" + blog("gray", "service: service-gray", "weight: 20"))
    assert weighted.diagnostics == ()
    assert shares(RouteTable.build(weighted.mappings), get("/svc/")) == {GRAY: 20, STABLE: 80}
    by_header = read(stable + "---\n" + blog("gray", "service: service-gray", "headers:", "  gray: true"))
    assert by_header.diagnostics == ()
    routes = RouteTable.build(by_header.mappings)
    assert shares(routes, get("/svc/", {"gray": "true"})) == {GRAY: 100}
    assert shares(routes, get("/svc/")) == {STABLE: 100}


def test_the_broken_rules_of_the_blog_leave_their_neighbours_alone() -> None:
    text = blog("stable", "service: service-stable") + "---\n" + blog("gray", "service: service-gray  weight: 20")
    rules = read(text)
    assert [m.name for m in rules.mappings] == ["stable_mapping"]
    assert [d.line for d in rules.diagnostics] == [34]
    assert shares(RouteTable.build(rules.mappings), get("/svc/")) == {STABLE: 100}
