"""The JSON API of the admin port: every answer is as described, and shows what is there."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from admin_client import GOOD, admin, fetch_app, validated
from admin_examples import HOSTILE
from servers import mapping, run

from canary_mw.admin.openapi import openapi
from canary_mw.client.held import Held
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.upstreams.health import EndpointStatus


def asked(path: str, *texts: str, query: dict[str, str] | None = None) -> Any:
    """The answer of the API about some rules."""

    async def main() -> Any:
        app = admin(*(texts or (GOOD,)))
        answer = await fetch_app(app, f"{path}?{urlencode(query or {})}")
        assert answer.status == 200, answer.body
        return validated(answer, path)

    return run(main())


def test_the_description_is_that_of_openapi_and_names_every_path_of_the_api() -> None:
    async def main() -> None:
        app = admin(GOOD)
        described = json.loads((await fetch_app(app, "/api/v1/openapi.json")).body)
        assert described["openapi"] == "3.1.0"
        for path, operations in described["paths"].items():
            for method, operation in operations.items():
                assert operation["summary"]
                assert {"200", "default"} <= set(operation["responses"]), (path, method)
            # The events have no end, and evidence is for pods.
            if "get" in operations and path not in ("/api/v1/events", "/api/v1/evidence"):
                assert (await fetch_app(app, path.replace("{name}", "shop"))).status in (200, 400)

    run(main())


def test_releases_are_listed_by_name_with_what_is_in_force() -> None:
    listed = asked("/api/v1/releases")["releases"]
    assert [(each["name"], each["document"], each["weights"]) for each in listed] == [
        ("a", False, {"stable": 80.0, "gray": 20.0}),
        ("shop", True, {"stable": 80.0, "gray": 20.0}),
    ]
    assert all(each["rollout"] is None for each in listed), "nothing drives them"


def test_rules_come_in_the_order_in_which_they_are_tried() -> None:
    answer = asked("/api/v1/rules")
    assert [each["name"] for each in answer["rules"]] == ["wide", "narrow", "a + b", "beta", "stable + gray"]
    assert [each["order"] for each in answer["rules"]] == [1, 2, 3, 4, 5]
    governed = answer["rules"][4]
    assert governed["release"] == "shop"
    assert {each["mapping"]: (each["gray"], each["percent"]) for each in governed["members"]} == {
        "gray": (True, 20.0),
        "stable": (False, 80.0),
    }
    assert answer["rules"][3]["conditions"] == ["header x-beta = 1"]
    assert answer["in_force"]["generation"] == 1
    assert answer["scope"]["workers"] == answer["in_force"]["workers_on_it"] == 1


def test_a_rule_that_is_never_reached_is_named_with_the_one_before_it() -> None:
    answer = asked("/api/v1/rules", query={"state": "never_reached"})
    (rule,) = answer["rules"]
    assert (rule["name"], rule["label"]) == ("narrow", "Never reached")
    assert "wide comes first" in rule["why"]
    assert answer["finding"] == "4 of 5 rules are live as written."
    (problem,) = answer["problems"]
    assert problem["label"] == "Live, but never reached"
    assert marked(problem) == ["apiVersion: getambassador.io/v2"]


def marked(problem: dict[str, Any]) -> list[str]:
    """The lines of an excerpt that a problem is about."""
    return [line["text"].strip() for line in problem["excerpt"] if line["marked"]]


def test_a_problem_says_which_line_is_wrong_and_what_answers_meanwhile() -> None:
    broken = GOOD.replace("weight: 20", "weight: 120").replace("gray: {gray: 20}", "gray: {gray: 200}")
    answer = asked("/api/v1/rules", GOOD, broken + mapping("new", "/new/", "new", weight="much"))
    found = {each["code"]: each for each in answer["problems"] if each["severity"] == "error"}
    marked = {
        code: [line["text"].strip() for line in each["excerpt"] if line["marked"]] for code, each in found.items()
    }
    assert marked == {
        "weight-range": ["weight: 120"],
        "wrong-type": ["weight: much"],
        "release-weight-value": ["gray: {gray: 200}"],
    }
    assert {code: each["label"] for code, each in found.items()} == {
        "weight-range": "Not live: last good kept",
        "wrong-type": "Not live",
        "release-weight-value": "Not live: last good kept",
    }
    states = {each["name"]: each["state"] for each in answer["rules"]}
    assert states["a + b"] == states["stable + gray"] == "last_good"
    assert states["new"] == "ignored"
    # All errors, and the Mapping that is never reached.
    assert answer["in_force"]["problems"] == 4


def test_a_source_that_lost_all_rules_is_a_problem_although_it_stands_in_no_document() -> None:
    answer = asked("/api/v1/rules", GOOD, "")
    problem = answer["problems"][0]
    assert (problem["code"], problem["severity"]) == ("rules", "error")
    assert problem["meanwhile"] == "The rules before this change stay in force."
    assert answer["total"] == 5


def test_rules_are_found_by_text_release_and_page() -> None:
    many = "".join(mapping(f"m{number}", f"/p{number:03}/", f"s{number}") for number in range(250))

    async def main() -> None:
        app = admin(GOOD + many)
        seen: list[str] = []
        after: int | None = 0
        while after is not None:
            answer = validated(await fetch_app(app, f"/api/v1/rules?after={after}&q=/p"), "/api/v1/rules")
            seen += [each["prefix"] for each in answer["rules"]]
            assert answer["found"] == 250
            after = answer["next"]
        assert sorted(seen) == [f"/p{number:03}/" for number in range(250)]
        answer = json.loads((await fetch_app(app, "/api/v1/rules?release=shop")).body)
        assert [each["name"] for each in answer["rules"]] == ["stable + gray"]
        for query in ("limit=0", "limit=501", "after=-1", "after=x", "state=odd", "limit=1e3", "after=%C2%B2"):
            answer = await fetch_app(app, f"/api/v1/rules?{query}")
            assert answer.status == 400
            validated(answer, "/api/v1/rules", "default")

    run(main())


def test_the_values_of_credentials_are_not_shown() -> None:
    broken = GOOD + mapping(
        "late", "/late/", "late", weight="much", add_request_headers='{"authorization": "Bearer x"}'
    )
    answer = asked("/api/v1/rules", broken)
    assert "Bearer" not in json.dumps(answer)
    assert "(not shown)" in json.dumps(answer)
    explained = asked("/api/v1/explain", query={"url": "/shop/", "headers": "x-user-id: 42"})
    assert "Bearer" not in json.dumps(explained)
    assert ["authorization", "(not shown)"] in explained["sent"]["added"]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        (
            {"url": "https://shop.example/shop/pay?a=1", "headers": "x-user-id: 1"},
            "shop-gray answers, because the key of header:x-user-id lies at 19.9368, in 0 – 20 of gray.",
        ),
        (
            {"url": "/shop/", "headers": "x-user-id: 42"},
            "shop-stable answers, because the key of header:x-user-id lies at 37.0181, outside of the ranges of gray"
            " versions.",
        ),
        (
            {"url": "/shop/", "headers": "x-gray: always"},
            "shop-gray answers, because a header of the request chooses it.",
        ),
        ({"url": "/shop/"}, "shop-stable answers, because the request has no key."),
        ({"url": "/shop/", "headers": "x-beta: 1"}, "shop-beta answers, because beta takes the request."),
        ({"url": "/split/"}, "Each request is drawn by itself: a 80 %, b 20 %."),
        ({"url": "/none/"}, "canary-mw itself answers with 404, because no rule takes the request."),
    ],
)
def test_a_request_is_explained_in_a_sentence(query: dict[str, str], sentence: str) -> None:
    answer = asked("/api/v1/explain", query=query)
    assert answer["sentence"] == sentence
    assert sum(each["percent"] for each in answer["others"]) == pytest.approx(100)


def test_a_decision_is_explained_step_by_step() -> None:
    answer = asked("/api/v1/explain", query={"url": "https://shop.example/shop/pay?a=1", "headers": "x-user-id: 1"})
    decided = [each["title"] for each in answer["steps"] if each["applies"]]
    assert decided == ["2 rules have this host and prefix", "stable + gray takes the request", "Sticky key"]
    assert answer["steps"][1]["title"] == "beta does not match"
    assert answer["steps"][2]["source"]["file"] == "rules"
    assert answer["release"]["slot"] == answer["position"]["slot"]
    assert answer["position"]["percent"] == answer["release"]["slot"] / 10_000
    assert answer["sent"]["to"] == "GET http://shop-gray/pay?a=1"
    assert (answer["sent"]["path"], answer["sent"]["rewritten"]) == ("/shop/pay?a=1", "/pay?a=1")
    assert answer["sent"]["timeout"] == "3 s, then stable answers"
    assert answer["candidates"][0]["service"] == "shop-gray"
    assert {each["service"]: each["when"] for each in answer["others"]} == {
        "shop-gray": "key in 0 – 20",
        "shop-stable": "any other key",
    }


BESIDE_AN_APP = (
    mapping("stable", "/shop/", "shop")
    + mapping("gray", "/shop/", "shop-gray", weight=0)
    + mapping("red", "/red/", "other.example", host_redirect="true")
    + mapping("main", "/sh/", "main")
    + mapping("copies", "/sh/", "copies", shadow="true", weight=10)
    + """\
---
apiVersion: canary-mw/v1
kind: GrayRelease
name: shop
gray: {gray: {weight: 30, always: {ids: ["7"]}}}
never: {ids: ["8"]}
sticky: [{user: id}]
layer: {name: l, from: 0, to: 60}
audience: {header: {x-beta: "1"}}
choice: {query: g, trusted: true}
"""
)


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ({"url": "/shop/"}, "The wrapped app answers, because the request is not in the audience."),
        ({"url": "/shop/", "user": {"id": 7}}, "shop-gray answers, because the key is in a list that always gets it."),
        (
            {"url": "/shop/", "user": {"id": 8}},
            "The wrapped app answers, because the key is in a list that never gets gray.",
        ),
        (
            {"url": "/shop/?g=always", "peer_trusted": True},
            "shop-gray answers, because a query parameter of the request chooses it.",
        ),
        ({"url": "/shop/?g=always"}, "The wrapped app answers, because the request is not in the audience."),
        (
            {"url": "/red/"},
            "canary-mw itself answers with 301 to http://other.example/red/, because red takes the request.",
        ),
        ({"url": "/none/"}, "The wrapped app answers, because no rule takes the request."),
    ],
)
def test_a_request_beside_an_app_is_explained_too(question: dict[str, Any], sentence: str) -> None:
    store = RuleStore(StaticSource(BESIDE_AN_APP), local=["shop"], middleware=True)
    store.reload()

    async def main() -> Any:
        body = json.dumps(question).encode()
        answer = await fetch_app(admin(store=store), "/api/v1/explain", "POST", body=body)
        return validated(answer, "/api/v1/explain", method="post")

    answer = run(main())
    assert answer["sentence"] == sentence
    assert sum(each["percent"] for each in answer["others"]) == pytest.approx(100)


def test_a_copy_is_told_with_its_share() -> None:
    explained = asked("/api/v1/explain", BESIDE_AN_APP, query={"url": "/sh/x"})
    assert explained["sent"]["copy"] == "copies/x gets a copy of 10 % of the requests"
    assert [each["when"] for each in explained["others"]] == ["always"]


def test_a_question_in_json_is_answered_as_the_form_is() -> None:
    async def main() -> None:
        app = admin(GOOD)
        query = urlencode({"url": "https://shop.example/shop/", "headers": "x-user-id: 42", "user": '{"id": 1}'})
        by_form = json.loads((await fetch_app(app, f"/api/v1/explain?{query}")).body)
        for headers in ({"x-user-id": "42"}, [["x-user-id", "42"]], "x-user-id: 42"):
            body = {"url": "https://shop.example/shop/", "headers": headers, "user": {"id": 1}}
            answer = await fetch_app(app, "/api/v1/explain", "POST", body=json.dumps(body).encode())
            by_json = validated(answer, "/api/v1/explain", method="post")
            del by_json["now"], by_form["now"]
            assert by_json == by_form
            by_form["now"] = ""

    run(main())


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 60_000, "no JSON"),
        (b"[]", "no JSON object"),
        (b"{}", "url is missing"),
        (b'{"url": 1}', "url must be a text"),
        (b'{"url": "ftp://a/"}', "write https://HOST/PATH"),
        (b'{"url": "http://["}', "url: "),
        (b'{"url": "/", "method": "GET /"}', "answered 400"),
        (b'{"url": "/#a"}', "answered 400"),
        (b'{"url": "/", "headers": ["x"]}', "a list of [name, value]"),
        (b'{"url": "/", "headers": {"x": 1}}', "a list of [name, value]"),
        (b'{"url": "/", "headers": "x"}', "write name: value"),
        (b'{"url": "/", "predicates": {"a": 1}}', "true and false"),
        (b'{"url": "/", "peer_trusted": "yes"}', "true or false"),
        (b'{"url": "/' + b"a" * 70_000 + b'"}', "more than 65536 bytes"),
    ],
)
def test_a_question_that_cannot_be_read_is_refused_with_the_reason(message: bytes, text: str) -> None:
    async def main() -> None:
        app = admin(GOOD)
        answer = await fetch_app(app, "/api/v1/explain", "POST", body=message)
        assert answer.status in (400, 413)
        assert text in validated(answer, "/api/v1/explain", "default", "post")["error"]["message"]

    run(main())


def test_a_page_is_the_same_as_json_and_the_form_stays_with_its_mistake() -> None:
    async def main() -> None:
        app = admin(GOOD)
        for name in ("rules", "endpoints", "about"):
            page = json.loads((await fetch_app(app, f"/ambassador/v0/diag/{name}?json=true")).body)
            api = json.loads((await fetch_app(app, f"/api/v1/{name}")).body)
            assert {**page, "now": ""} == {**api, "now": ""}
        empty = json.loads((await fetch_app(app, "/ambassador/v0/diag/explain?json=true")).body)
        assert (empty["request"]["method"], empty["error"]) == ("GET", None)
        wrong = json.loads((await fetch_app(app, "/ambassador/v0/diag/explain?json=true&url=/&user=%7B")).body)
        assert wrong["request"]["user"] == "{"
        assert "user is no JSON" in wrong["error"]

    run(main())


def test_hostile_names_are_escaped_in_json() -> None:
    name = json.dumps(HOSTILE)
    text = mapping(name, json.dumps(f"/{HOSTILE}/"), "shop", weight="much") + mapping(name, "/a/", "shop")

    async def main() -> None:
        app = admin(text)
        for path in ("/api/v1/rules", "/api/v1/explain?url=/a/"):
            answer = await fetch_app(app, path)
            assert answer.status == 200
            assert answer.body.isascii()
            assert HOSTILE in json.loads(answer.body)[("rules" if "rules" in path else "considered")][0].get(
                "name", HOSTILE
            )

    run(main())


def test_about_names_settings_workers_and_libraries() -> None:
    settings = [
        {"name": "header_key_file", "value": "set", "origin": "option", "variable": "CANARY_MW_HEADER_KEY_FILE"}
    ]

    async def main() -> None:
        app = admin(GOOD, settings=settings, pod="shop-1", folder=lambda: "/nowhere")
        answer = validated(await fetch_app(app, "/api/v1/about"), "/api/v1/about")
        assert answer["settings"] == settings
        assert answer["pod"] == "shop-1"
        assert answer["figures"] == {"folder": "/nowhere", "bytes": 0}
        assert [each["state"] for each in answer["workers"]] == ["live"]
        assert "starlette" in answer["libraries"]

    run(main())


def test_endpoints_are_listed_by_service_with_their_worst_state() -> None:
    def status(number: int, state: Any) -> EndpointStatus:
        back_in = 12.34 if state == "ejected" else None
        return EndpointStatus("shop", f"10.0.0.{number}:80", state, "" if state == "healthy" else state, back_in)

    async def listed(*statuses: EndpointStatus) -> Any:
        app = admin(GOOD, endpoints=lambda: statuses)
        return validated(await fetch_app(app, "/api/v1/endpoints"), "/api/v1/endpoints")

    async def main() -> None:
        assert (await listed())["finding"] == "No service has been asked yet."
        assert (await listed(status(1, "healthy")))["finding"] == "The only address gets requests."
        two = await listed(status(1, "healthy"), status(2, "healthy"))
        assert two["finding"] == "All 2 addresses get requests."
        mixed = await listed(status(1, "healthy"), status(2, "ejected"), status(1, "unhealthy"), status(2, "healthy"))
        assert mixed["finding"] == "2 of 2 addresses get no requests."
        (service,) = mixed["services"]
        shown = [(each["address"], each["state"], each["back_in_seconds"]) for each in service["endpoints"]]
        assert shown == [("10.0.0.1:80", "unhealthy", None), ("10.0.0.2:80", "ejected", 12.3)]
        held = (await listed(status(1, "healthy"), status(2, "healthy")._replace(held=Held(3, 1))))["services"][0]
        assert [(each["connections"], each["waiting"]) for each in held["endpoints"]] == [(None, None), (3, 1)]

    run(main())


def test_readiness_tells_generation_and_age_when_asked() -> None:
    async def main() -> None:
        app = admin(GOOD, clock=lambda: 1e12)
        assert (await fetch_app(app, "/readyz")).body == b"ready: rules 1 are in force\n"
        body = (await fetch_app(app, "/readyz?verbose")).body.decode()
        assert "rules: generation 1, in force for 99" in body
        assert body.endswith(" s, the newest\n")
        app = admin(GOOD, "", clock=lambda: 0.0)
        assert b"in force for 0.0 s, the last good" in (await fetch_app(app, "/readyz?verbose")).body
        app = admin("", store=RuleStore(StaticSource(GOOD)))
        answer = await fetch_app(app, "/readyz?verbose")
        assert answer.status == 503
        assert b"generation 0, never in force" in answer.body

    run(main())


def test_the_page_about_the_api_names_every_path() -> None:
    page = (Path(__file__).parents[3] / "docs" / "admin-api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(/api/v1/[^?`]+)", page, re.M))
    assert listed == set(openapi()["paths"])
