import pytest
from rules import mapping, table

from canary_mw.config.document import Diagnostic
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.inspection.lint_settings import lint_local, lint_upstreams
from canary_mw.rules.mapping import Redirect

RULES = table(
    mapping("stable", service="shop-stable"), mapping("gray", service="shop-gray:8080", file="r.yaml", line=9)
)


def about(found: list[Diagnostic]) -> list[tuple[str, str | None]]:
    return [(each.code, each.mapping or each.hint) for each in found]


@pytest.mark.parametrize("name", ["shop-stable", "shop-stable:80", "shop-gray", "shop-gray:8080"])
def test_a_local_name_of_some_service_is_right(name: str) -> None:
    assert lint_local(RULES, [name]) == []


def test_a_name_with_and_without_its_namespace_is_one_name() -> None:
    namespaced = table(mapping("stable", service="shop-stable.shop"))
    assert lint_local(namespaced, ["shop-stable", "shop-stable.shop"]) == []
    assert len(lint_local(namespaced, ["shop", "shop-stable.shop"])) == 1
    assert len(lint_local(namespaced, ["shop-stable"])) == 1


def test_a_local_name_to_which_no_mapping_leads_is_reported_with_the_closest_one() -> None:
    (finding,) = lint_local(RULES, ["shop-stabel"])
    assert str(finding) == (
        "--local: warning unknown-local no Mapping leads to shop-stabel:"
        " the app answers only what no Mapping takes (did you mean shop-stable?)"
    )


def test_services_without_an_upstream_are_reported_once_each() -> None:
    again = mapping("again", "/a/", service="shop-gray:8080")
    rules = table(*RULES.mappings, again)
    assert about(lint_upstreams(rules, ["shop-stable"])) == [("no-upstream", "gray")]
    (finding,) = lint_upstreams(rules, ["shop-stable"])
    assert (finding.file, finding.line) == ("r.yaml", 9)


@pytest.mark.parametrize("given", [["*"], ["shop-stable", "shop-gray"], ["shop-stable:80", "shop-gray:8080"]])
def test_a_service_is_found_under_each_of_its_names(given: list[str]) -> None:
    assert lint_upstreams(RULES, given) == []


def test_the_local_service_needs_no_upstream() -> None:
    assert lint_upstreams(RULES, ["shop-gray"], ["shop-stable"]) == []


@pytest.mark.parametrize("service", ["shop.shops", "10.0.0.1:80", "[::1]:80", "localhost:9001", "https://a.example"])
def test_names_with_a_dot_addresses_and_this_host_need_no_upstream(service: str) -> None:
    assert lint_upstreams(table(mapping(service=service)), ["*"]) == []
    assert about(lint_upstreams(table(mapping(service=service)), ["shop"]))[1:] == []


def test_a_redirect_needs_no_upstream_and_uses_none() -> None:
    rules = table(mapping("old", service="new", redirect=Redirect(host="new")))
    assert [each.code for each in lint_upstreams(rules, ["new"])] == ["unused-upstream"]


@pytest.mark.parametrize("name", ["shop-grey", "Shop-Gray"])
def test_an_upstream_that_no_mapping_uses_is_reported_with_the_closest_name(name: str) -> None:
    assert about(lint_upstreams(RULES, ["shop-stable", "shop-gray", name])) == [
        ("unused-upstream", "did you mean shop-gray?")
    ]


@pytest.mark.parametrize(
    "document",
    [
        "kind: TCPMapping\nname: a\nport: 5672\nservice: broker:5672\n",
        "kind: LogService\nname: a\nservice: broker\n",
        "kind: TracingService\nname: a\nservice: broker\ndriver: zipkin\n",
        "kind: RateLimitService\nname: a\nservice: broker\n",
        "kind: AuthService\nname: a\nauth_service: broker\n",
    ],
)
def test_an_upstream_of_another_kind_than_mapping_is_used(document: str) -> None:
    text = f"---\napiVersion: getambassador.io/v3alpha1\n{document}"
    store = RuleStore(StaticSource(text))
    store.reload()
    assert lint_upstreams(store.table, ["broker"]) == []
    assert [each.code for each in lint_upstreams(store.table, ["brokr"])] == ["unused-upstream"]
