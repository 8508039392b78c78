import json
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rules import document, get, header, mapping, substitution, table

from canary_mw.forwarding.messages import Reply, UpstreamRequest
from canary_mw.http.messages import RequestHead
from canary_mw.inspection.explanation import explain
from canary_mw.inspection.explanation_json import explain_batch
from canary_mw.routing.decision import decide
from canary_mw.routing.table import RouteTable
from canary_mw.rules.mapping import HeaderChange, Redirect
from canary_mw.rules.matchers import Condition, HostPattern

Json = dict[str, Any]

WEIGHTED = document("stable", prefix="/svc/") + document("gray", prefix="/svc/", weight=20)


def shares(routes: RouteTable, head: RequestHead) -> dict[str | None, float]:
    return {c.decision.mapping.name if c.decision else None: c.percent for c in explain(routes, head).candidates}


def run_batch(rules: str, *requests: Json, **more: Any) -> Json:
    """The result of one batch line, encoded and decoded as JSON."""
    message = {"rules": rules, "source": "annotation", "mode": "standalone", "local": None, "requests": list(requests)}
    line: Json = json.loads(json.dumps(explain_batch(json.loads(json.dumps({**message, **more})), {})))
    return line


def request(path: str = "/svc/", *, method: str = "GET", host: str | None = "example.com", **more: Any) -> Json:
    return {"method": method, "path": path, "host": host, "headers": {}, **more}


def candidates(rules: str, one: Json | None = None, **more: Any) -> list[Json]:
    (result,) = run_batch(rules, one or request(), **more)["results"]
    found: list[Json] = result["candidates"]
    return found


def test_the_shares_are_those_of_the_weights() -> None:
    routes = table(mapping("stable"), mapping("gray", weight=20))
    assert shares(routes, get()) == {"gray": 20, "stable": 80}
    assert shares(routes, get("/other")) == {None: 100}


def test_a_mapping_without_a_share_is_no_candidate() -> None:
    assert shares(table(mapping("stable"), mapping("gray", weight=0)), get()) == {"stable": 100}


def test_a_remainder_is_explained_as_it_is_routed() -> None:
    assert shares(table(mapping("one", weight=20), mapping("two", weight=30)), get()) == {"one": 40, "two": 60}
    thirds = shares(table(*(mapping(name, weight=1) for name in "abc")), get())
    assert thirds == pytest.approx({"a": 100 / 3, "b": 100 / 3, "c": 100 / 3})
    fallen = table(mapping("one", weight=20), mapping("two", weight=30), mapping("root", "/", weight=60))
    assert shares(fallen, get()) == {"one": 20, "two": 30, "root": 50}


def test_an_outcome_is_what_would_be_sent_or_answered() -> None:
    routes = table(
        mapping("up", "/up/"),
        mapping("gone", "/gone/", redirect=Redirect(host="new.com")),
        mapping("climb", "/climb", rewrite="/api/"),
    )
    kinds = {}
    for target in ("/up/a", "/gone/a", "/none", "/climb../x"):
        (candidate,) = explain(routes, get(target)).candidates
        outcome = candidate.outcome
        kinds[target] = outcome.status if isinstance(outcome, Reply) else type(outcome)
    assert kinds == {"/up/a": UpstreamRequest, "/gone/a": 301, "/none": 404, "/climb../x": 400}


def test_every_group_that_could_match_says_why_it_does_or_does_not() -> None:
    routes = table(
        mapping("a"),
        mapping("b", conditions=header("gray")),
        mapping("c", query=(Condition("q", "1"),)),
        mapping("far", "/other/"),
        mapping("host", host=HostPattern("a.com")),
        mapping("exact", prefix_kind="exact"),
        mapping("post", method=Condition(":method", "POST")),
    )
    considered = {c.group: (c.matched, c.why) for c in explain(routes, get("/svc/x")).considered}
    assert considered == {
        "a": (True, "prefix /svc/"),
        "b": (False, "not: header gray present"),
        "c": (False, "not: query q = 1"),
        "exact": (False, "not: prefix_exact /svc/"),
        "post": (False, "not: method = POST"),
    }


def test_the_considered_groups_come_in_the_order_of_routing() -> None:
    routes = table(mapping("root", "/"), mapping("a"), mapping("b", conditions=header("gray")))
    explanation = explain(routes, get(headers={"gray": "1"}))
    assert [(c.group, c.why) for c in explanation.considered] == [
        ("b", "prefix /svc/, header gray present"),
        ("a", "prefix /svc/"),
        ("root", "prefix /"),
    ]
    assert [c.percent for c in explanation.candidates] == [100]


def test_explaining_changes_nothing() -> None:
    routes = table(mapping("stable"), mapping("gray", weight=20))
    first, second = explain(routes, get()), explain(routes, get())
    assert first.candidates == second.candidates
    assert first.considered == second.considered


conditions = st.sampled_from([(), header("x"), header("x", "1"), header("x", "1|2", regex=True)])
drawn_rules = st.lists(
    st.fixed_dictionaries(
        {
            "prefix": st.sampled_from(["/", "/svc", "/svc/", "/SVC/"]),
            "prefix_kind": st.sampled_from(["plain", "plain", "plain", "exact", "regex"]),
            "weight": st.one_of(st.none(), st.integers(-5, 105)),
            "conditions": conditions,
            "case_sensitive": st.sampled_from([True, True, False]),
            "host": st.sampled_from([HostPattern("*"), HostPattern("a.com")]),
            "redirect": st.sampled_from([None, None, None, None, Redirect(host="new.com")]),
            "shadow": st.sampled_from([False, False, False, True]),
        }
    ),
    min_size=1,
    max_size=8,
)
drawn_heads = st.builds(
    get,
    st.sampled_from(["/svc/", "/svc/a", "/SVC/", "/"]),
    st.sampled_from([{}, {"x": "1"}, {"x": "2"}, {"host": "a.com"}]),
)


@given(drawn_rules, drawn_heads, st.booleans())
def test_the_shares_add_up_to_100(drawn: list[Json], head: RequestHead, middleware: bool) -> None:
    routes = table(*(mapping(f"m{n}", **more) for n, more in enumerate(drawn)), middleware=middleware)
    explanation = explain(routes, head)
    assert sum(c.percent for c in explanation.candidates) == pytest.approx(100)
    assert all(c.percent > 0 for c in explanation.candidates)
    taken = [c.decision.group for c in explanation.candidates if c.decision]
    assert {*taken} <= {c.group for c in explanation.considered if c.matched}


@pytest.mark.slow
@settings(max_examples=20)
@given(drawn_rules, drawn_heads, st.booleans())
def test_ten_thousand_rolls_agree_with_the_shares(drawn: list[Json], head: RequestHead, middleware: bool) -> None:
    routes = table(*(mapping(f"m{n}", **more) for n, more in enumerate(drawn)), middleware=middleware)
    rolls, generator = 10_000, random.Random(7)
    counted = Counter(decide(routes, head, generator.random() * 100) for _ in range(rolls))
    expected = {c.decision: c.percent / 100 for c in explain(routes, head).candidates}
    assert counted.keys() <= expected.keys()
    for decision, share in expected.items():
        sigma = (rolls * share * (1 - share)) ** 0.5
        assert abs(counted[decision] - rolls * share) <= 4 * sigma + 1e-6


def test_a_batch_line_has_the_pinned_form() -> None:
    line = run_batch(WEIGHTED, request("/svc/a?b=1", headers={"x-a": "1"}))
    assert line["diagnostics"] == []
    (result,) = line["results"]
    gray, stable = result["candidates"]
    assert gray == {
        "mapping": "gray",
        "service": "gray",
        "variant": "gray",
        "assigned": None,
        "weight_percent": 20,
        "status": 0,
        "upstream": {
            "method": "GET",
            "path": "/a?b=1",
            "host": "example.com",
            "headers_added": {},
            "headers_removed": [],
            "headers_changed": {},
            "timeout_ms": 3000,
        },
        "redirect": None,
        "response": {"headers_added": {}, "headers_removed": [], "headers_changed": {}},
        "shadow": None,
        "attributes": {},
    }
    assert (stable["mapping"], stable["variant"], stable["weight_percent"]) == ("stable", "stable", 80)
    assert result["considered"] == [{"group": "stable + gray", "matched": True, "why": "prefix /svc/"}]


def test_findings_of_documents_and_of_the_table_are_reported() -> None:
    rules = document("a", prefix="/svc/", weight=60) + document("b", prefix="/svc/", weight=50) + document(service=1)
    found = run_batch(rules)["diagnostics"]
    assert [(d["severity"], d["code"], d["line"], d["mapping"]) for d in found] == [
        ("error", "wrong-type", 20, "a"),
        ("error", "weights-over-100", 9, "b"),
    ]
    assert found[0]["message"].endswith("(put it in quotes)")
    assert set(found[0]) == {"severity", "file", "line", "mapping", "code", "message"}


def test_nothing_matched_is_a_404_standalone_and_the_app_in_a_middleware() -> None:
    (standalone,) = candidates(WEIGHTED, request("/none"))
    assert (standalone["status"], standalone["service"], standalone["mapping"]) == (404, None, None)
    (wrapped,) = candidates(WEIGHTED, request("/none"), mode="middleware")
    assert (wrapped["status"], wrapped["service"], wrapped["mapping"]) == (0, "app", None)
    assert wrapped["weight_percent"] == standalone["weight_percent"] == 100


def test_in_a_middleware_the_app_takes_what_a_single_weight_leaves() -> None:
    found = candidates(document("gray", prefix="/svc/", weight=20), mode="middleware")
    assert [(c["mapping"], c["service"], c["variant"], c["weight_percent"]) for c in found] == [
        ("gray", "gray", "gray", 20),
        (None, "app", None, 80),
    ]


def test_in_a_middleware_the_app_answers_for_the_local_service() -> None:
    found = {c["mapping"]: c for c in candidates(WEIGHTED, mode="middleware", local="stable")}
    assert (found["stable"]["status"], found["stable"]["upstream"], found["stable"]["variant"]) == (0, None, "stable")
    assert found["gray"]["upstream"]["path"] == "/"


def test_standalone_requests_are_sent_to_the_local_service_like_to_any_other() -> None:
    found = {c["mapping"]: c for c in candidates(WEIGHTED, local="gray")}
    assert found["gray"]["variant"] == "stable"
    assert found["gray"]["upstream"] is not None


@pytest.mark.parametrize("path", ["/a#b", "/a b", "/%00", "nothing"])
def test_a_target_that_cannot_be_matched_is_a_400(path: str) -> None:
    (result,) = run_batch(WEIGHTED, request(path))["results"]
    assert [(c["mapping"], c["status"], c["weight_percent"]) for c in result["candidates"]] == [(None, 400, 100)]
    assert result["considered"] == []


def test_a_request_that_cannot_be_forwarded_is_a_400_of_its_mapping() -> None:
    (found,) = candidates(document(prefix="/svc", rewrite="/api/"), request("/svc../x"))
    assert (found["mapping"], found["status"], found["upstream"], found["redirect"]) == ("a", 400, None, None)


def test_headers_may_be_pairs_and_the_host_may_be_missing() -> None:
    rules = document(prefix="/svc/", headers="{x-a: two}")
    pairs = [["X-A", "one"], ["x-a", "two"]]
    (found,) = candidates(rules, request(host=None, headers=pairs))
    assert (found["mapping"], found["upstream"]["host"]) == ("a", "")
    (none,) = candidates(rules, request(headers=None))
    assert none["status"] == 404


def test_changes_to_headers_are_shown_relative_to_the_request() -> None:
    rules = document(
        prefix="/svc/",
        add_request_headers="{x-new: a, x-both: b, x-set: {value: c, append: false}}",
        remove_request_headers="[x-gone, x-never]",
        add_response_headers="{x-r: '1', x-s: {value: '2', append: false}}",
        remove_response_headers="server",
    )
    (found,) = candidates(rules, request(headers={"X-Both": "1", "x-set": "1", "x-gone": "1", "x-kept": "1"}))
    upstream = found["upstream"]
    assert upstream["headers_added"] == {"x-new": ["a"]}
    assert upstream["headers_removed"] == ["x-gone"]
    assert upstream["headers_changed"] == {"x-both": ["1", "b"], "x-set": ["c"]}
    assert found["response"] == {
        "headers_added": {"x-r": ["1"]},
        "headers_removed": ["server"],
        "headers_changed": {"x-s": ["2"]},
    }


def test_headers_that_forwarding_always_changes_are_not_listed() -> None:
    usual = {"connection": "close", "te": "trailers", "via": "1.1 a", "x-forwarded-for": "1.1.1.1", "forwarded": "x"}
    (found,) = candidates(document(prefix="/svc/"), request(headers=usual))
    assert (found["upstream"]["headers_added"], found["upstream"]["headers_removed"]) == ({}, [])
    assert found["upstream"]["headers_changed"] == {}


def test_a_redirect_is_shown_with_status_and_location() -> None:
    rules = document(prefix="/svc/", service="new.com", host_redirect="true", redirect_response_code=307)
    (found,) = candidates(rules, request("/svc/a?b"))
    assert found["redirect"] == {"status": 307, "location": "http://new.com/svc/a?b"}
    assert (found["status"], found["upstream"], found["response"]) == (307, None, None)


def test_an_upgrade_that_is_not_allowed_is_a_403() -> None:
    upgrade = request(headers={"connection": "upgrade", "upgrade": "websocket"})
    (refused,) = candidates(document(prefix="/svc/"), upgrade)
    assert (refused["status"], refused["mapping"], refused["redirect"]) == (403, "a", None)
    (allowed,) = candidates(document(prefix="/svc/", use_websocket="true"), upgrade)
    assert allowed["status"] == 0


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_a_shadow_gets_a_copy_of_what_is_sent(method: str) -> None:
    rules = document(prefix="/svc/", rewrite="/v2/")
    rules += document("copy", prefix="/svc/", shadow="true", weight=30, rewrite="/not/used/")
    (found,) = candidates(rules, request("/svc/x", method=method, host="example.com:8080"))
    assert found["shadow"] == {"service": "copy", "path": "/v2/x", "host": "example.com-shadow:8080", "percent": 30}


def test_a_shadow_without_a_weight_gets_all_and_the_rewritten_host() -> None:
    rules = document(prefix="/svc/", host_rewrite="inner") + document("copy", prefix="/svc/", shadow="true")
    (found,) = candidates(rules)
    assert (found["shadow"]["percent"], found["shadow"]["host"]) == (100, "inner-shadow")


def test_writes_are_not_shadowed() -> None:
    rules = document(prefix="/svc/") + document("copy", prefix="/svc/", shadow="true")
    (found,) = candidates(rules, request(method="POST"))
    assert found["shadow"] is None


def test_the_kept_attributes_are_shown_with_each_candidate() -> None:
    kept = {
        "bypass_auth": "true",
        "labels": "{ambassador: [{a: [b]}]}",
        "auth_context_extensions": "{a: b}",
        "add_linkerd_headers": "true",
        "tls": "context",
        "grpc": "false",
        "priority": "high",
        "docs": "{path: /docs, since: 2020-01-02}",
        "stats_name": "s",
        "cluster_tag": "t",
        "load_balancer": "{policy: maglev, header: x-user}",
    }
    context = "---\napiVersion: getambassador.io/v2\nkind: TLSContext\nname: context\n"
    found, plain = candidates(context + document(prefix="/svc/", weight=50, **kept) + document("b", prefix="/svc/"))
    assert found["attributes"] == {
        "add_linkerd_headers": True,
        "auth_context_extensions": {"a": "b"},
        "bypass_auth": True,
        "cluster_tag": "t",
        "docs": {"path": "/docs", "since": "2020-01-02"},
        "grpc": False,
        "labels": {"ambassador": [{"a": ["b"]}]},
        "load_balancer": {"policy": "maglev", "header": "x-user"},
        "priority": "high",
        "stats_name": "s",
        "tls": "context",
    }
    assert plain["attributes"] == {}


def test_a_request_that_the_module_refuses_has_one_candidate() -> None:
    module = "---\nkind: Module\nname: ambassador\napiVersion: getambassador.io/v2\n"
    module += "config: {ip_deny: [{peer: 10.0.0.0/8}]}\n"
    (out,) = candidates(module + document(prefix="/svc/"), request(client="10.1.2.3"))
    assert (out["status"], out["mapping"], out["attributes"]) == (403, None, {})
    (let_in,) = candidates(module + document(prefix="/svc/"), request(client="11.1.2.3"))
    assert let_in["mapping"] == "a"


def test_a_preflight_is_shown_with_the_headers_of_its_response() -> None:
    rules = document(prefix="/svc/", cors="{origins: 'http://a.com', methods: GET, max_age: '60'}")
    headers = {"origin": "http://a.com", "access-control-request-method": "PUT"}
    (preflight,) = candidates(rules, request(method="OPTIONS", headers=headers))
    assert (preflight["status"], preflight["upstream"]) == (200, None)
    assert preflight["response"]["headers_added"] == {
        "access-control-allow-origin": ["http://a.com"],
        "access-control-allow-methods": ["GET"],
        "access-control-max-age": ["60"],
    }
    (simple,) = candidates(rules, request(headers=headers))
    assert simple["response"]["headers_changed"] == {"access-control-allow-origin": ["http://a.com"]}
    assert simple["status"] == 0


def test_templates_are_rendered_for_requests_and_shown_as_written_for_responses() -> None:
    rules = document(
        prefix="/svc/", add_request_headers="{x-p: '%REQ(:path)%'}", add_response_headers="{x-s: '%RESP(a)%'}"
    )
    (found,) = candidates(rules, request("/svc/x?y"))
    assert found["upstream"]["headers_added"] == {"x-p": ["/svc/x?y"]}
    assert found["response"]["headers_added"] == {"x-s": ["%RESP(a)%"]}


def test_the_environment_is_put_into_the_rules() -> None:
    message = {"rules": document(prefix="/svc/", service="$TARGET"), "requests": [request()]}
    (result,) = explain_batch(message, {"TARGET": "shop"})["results"]
    assert result["candidates"][0]["service"] == "shop"


def test_a_manifest_is_read_like_an_annotation() -> None:
    inner = "\n".join("      " + line for line in WEIGHTED.splitlines())
    rules = f"""\
apiVersion: v1
kind: Service
metadata:
  name: svc
  annotations:
    getambassador.io/config: |
{inner}
"""
    found = candidates(rules, source="k8s")
    assert [(c["mapping"], c["weight_percent"]) for c in found] == [("gray", 20), ("stable", 80)]


def test_rewrites_are_shown_as_they_are_sent() -> None:
    rule = mapping(
        regex_rewrite=substitution("/svc/(.*)", r"/\1"),
        host_rewrite="inner",
        add_request_headers=(HeaderChange(b"x-a", b"\xe9"),),
    )
    (candidate,) = explain(table(rule), get("/svc/a")).candidates
    assert isinstance(candidate.outcome, UpstreamRequest)
    assert (candidate.outcome.target, candidate.outcome.headers[0]) == (b"/a", (b"host", b"inner"))


@pytest.mark.parametrize(("middleware", "status"), [(True, 0), (False, 403)])
def test_a_handshake_is_explained_for_the_mode_of_the_table(middleware: bool, status: int) -> None:
    routes = table(mapping("a", "/a/"), middleware=middleware)
    (candidate,) = explain(routes, get("/a/", {"connection": "upgrade", "upgrade": "websocket"})).candidates
    assert (candidate.outcome.status if isinstance(candidate.outcome, Reply) else 0) == status
