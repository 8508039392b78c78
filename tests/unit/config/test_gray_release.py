"""GrayRelease documents: what is read, what is wrong with its line, and what stays in force beside an error."""

import json
from collections import Counter
from textwrap import indent
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from rules import document, get, read_rules

from canary_mw.config.parser import RuleSet
from canary_mw.config.reference.gray_release import GRAY_RELEASE_FIELDS
from canary_mw.config.reference.json_schema import document_schema
from canary_mw.routing.decision import decide
from canary_mw.routing.table import RouteTable
from canary_mw.rules.release import GrayRelease

STABLE = document("svc", prefix="/svc/")
# Without a weight: whatever a mistake does, half of the requests would be in gray.
GRAY = document("gray", prefix="/svc/")
MAPPINGS = STABLE + GRAY


def release(name: str | None = "r", **fields: Any) -> str:
    """A GrayRelease, a field to a line."""
    given = {"gray": {"gray": 20}, "sticky": [{"header": "k"}], **fields}
    lines = [f"{key.rstrip('_')}: {json.dumps(value)}" for key, value in given.items() if value is not None]
    head = ["apiVersion: canary-mw/v1", "kind: GrayRelease", *([f"name: {name}"] if name else [])]
    return "\n".join(["---", *head, *lines, ""])


def shares(rules: RuleSet, *, middleware: bool = False) -> dict[str | None, int]:
    """How many of 200 users each Mapping gets; None is the app, or 404."""
    table = RouteTable.build(rules.mappings, middleware=middleware, releases=rules.releases)
    counted: Counter[str | None] = Counter()
    for number in range(200):
        decision = decide(table, get("/svc/", {"k": f"user-{number}"}), number / 2 + 0.25)
        counted[decision.mapping.name or "app" if decision else None] += 1
    return dict(counted)


def problems(rules: RuleSet) -> list[tuple[str, int | None]]:
    return [(each.code, each.line) for each in rules.diagnostics if each.severity == "error"]


def only(rules: RuleSet) -> GrayRelease:
    (found,) = rules.releases.in_force
    return found


def test_a_release_has_the_defaults_of_its_reference() -> None:
    found = only(read_rules(MAPPINGS + release(sticky=None)))
    assert (found.name, found.namespace, found.lane, found.hash.name) == ("r", "default", "r", "r")
    assert (found.missing, found.stable, found.fallback, found.layer) == ("cookie", (), None, None)
    assert found.response_header == b"x-canary-variant"
    assert only(read_rules(MAPPINGS + release())).missing == "stable"


def test_the_safety_net_is_a_value() -> None:
    found = only(read_rules(MAPPINGS + release(fallback={}))).fallback
    assert found is not None
    assert sorted(found.kinds) == ["connect", "overload", "reset", "timeout"]
    assert (sorted(found.statuses), sorted(found.methods)) == ([502, 503, 504], ["GET", "HEAD", "OPTIONS"])
    assert (found.body, found.gray_timeout_ms) == (0, None)
    assert found.budget == (20, 10, 10)
    written = {"on": ["connect", 500], "gray_timeout_ms": 0, "methods": ["POST"], "body": 9, "budget": {"percent": 100}}
    found = only(read_rules(MAPPINGS + release(fallback=written))).fallback
    assert found is not None
    assert ([*found.kinds], [*found.statuses], [*found.methods]) == (["connect"], [500], ["POST"])
    assert (found.gray_timeout_ms, found.body, found.budget) == (0, 9, (100, 10, 10))


@pytest.mark.parametrize("written", ["{on: [500]}", "{'on': [500]}", "\n  on:\n  - 500"])
def test_on_needs_no_quotes(written: str) -> None:
    for nested in (False, True):
        fields = f"gray: {{gray: 20}}\nfallback: {written}\n"
        text = f"spec:\n{indent(fields, '  ')}" if nested else fields
        name = "metadata: {name: r}" if nested else "name: r"
        rules = read_rules(f"{MAPPINGS}---\napiVersion: canary-mw/v1\nkind: GrayRelease\n{name}\n{text}")
        fallback = only(rules).fallback
        assert fallback is not None
        assert ([*fallback.kinds], [*fallback.statuses]) == ([], [500])


@pytest.mark.parametrize("written", ["{on: [500], 'on': [502]}", "{off: [500]}", "{On: [500]}", "{yes: 1}"])
def test_another_key_that_is_no_text_is_an_error(written: str) -> None:
    rules = read_rules(MAPPINGS + release(fallback=None) + f"fallback: {written}\n")
    assert rules.releases.in_force == ()
    assert {code for code, _ in problems(rules)} <= {"bad-key", "duplicate-key"}


def test_every_field_has_a_description_and_every_example_is_valid() -> None:
    validator = Draft7Validator(document_schema())
    for name, text in GRAY_RELEASE_FIELDS.items():
        whole = {"apiVersion": "canary-mw/v1", "kind": "GrayRelease", "name": "r", "gray": {"g": 1}}
        whole |= yaml.safe_load(text.example)
        assert [error.message for error in validator.iter_errors(whole)] == [], name
        spec = {key: whole.pop(key) for key in [*whole] if key not in ("apiVersion", "kind", "name")}
        nested = {**whole, "spec": spec}
        assert [error.message for error in validator.iter_errors(nested)] == [], name
    assert list(validator.iter_errors({"apiVersion": "canary-mw/v1", "kind": "GrayRelease", "name": "r"})) != []


# A mistake, its code, and the line of the field in the text of `release`: gray is on 6, sticky on 7, others on 8.
MISTAKES: list[tuple[dict[str, Any], str, int]] = [
    ({"gray": {"gray": 101}}, "release-weight-value", 6),
    ({"gray": {"gray": -1}}, "release-weight-value", 6),
    ({"gray": {"gray": 0.00001}}, "release-weight-value", 6),
    ({"gray": {"gray": {"at": 5}}}, "release-weight-value", 6),
    ({"gray": {"gray": {"weight": 5, "at": 101}}}, "release-weight-value", 6),
    ({"gray": {"gray": "20"}}, "wrong-type", 6),
    ({"gray": {"gray": True}}, "wrong-type", 6),
    ({"gray": 20}, "wrong-type", 6),
    ({"gray": {}}, "bad-value", 6),
    ({"gray": {f"g{number}": 1 for number in range(17)} | {"gray": 1}}, "bad-value", 6),
    ({"gray": ["gray", "gray"]}, "bad-value", 6),
    ({"gray": {"stable": {"weight": 5, "mappings": ["gray"]}}}, "bad-value", 6),
    ({"gray": {"a b": {"weight": 5, "mappings": ["gray"]}}}, "bad-value", 6),
    ({"gray": {"gray": 60, "v": {"weight": 41, "mappings": ["gray"]}}}, "release-weights", 6),
    ({"gray": {"gray": 5, "grey": 5}}, "release-unknown-mapping", 6),
    ({"gray": {"gray": 5, "v": {"weight": 5, "mappings": ["gray"]}}}, "release-mapping", 6),
    ({"gray": {"v": {"weight": 5, "mappings": ["gray", "svc"]}}}, "release-mapping", 6),
    ({"gray": {"gray": {"share": 1}}}, "release-steps", 6),
    ({"sticky": [{"jwt": "sub"}]}, "release-key", 7),
    ({"sticky": ["cookie"]}, "release-key", 7),
    ({"sticky": [{"header": ""}]}, "release-key", 7),
    ({"sticky": [{"header": "a", "cookie": "b"}]}, "release-key", 7),
    ({"sticky": [{"header": "a b"}]}, "bad-value", 7),
    ({"stable": "nobody"}, "release-unknown-mapping", 8),
    ({"stable": ["svc", "local"]}, "bad-value", 8),
    ({"salt": "a:b"}, "bad-value", 8),
    ({"salt": ""}, "bad-value", 8),
    ({"lane": "-a"}, "bad-value", 8),
    ({"hash": "md5"}, "wrong-type", 8),
    ({"hash": {"kind": "unleash", "seed": "s"}}, "bad-value", 8),
    ({"hash": "unleash", "gray": {"gray": 2.5}}, "release-weight-value", 6),
    ({"missing": "dice"}, "wrong-type", 8),
    ({"cookie": {"name": "a b"}}, "bad-value", 8),
    ({"cookie": {"path": "/;x"}}, "bad-value", 8),
    ({"cookie": {"max_age": 0}}, "bad-value", 8),
    ({"cookie": {"consent": ""}}, "bad-value", 8),
    ({"choice": {"header": "a b"}}, "bad-value", 8),
    ({"layer": {"name": "l", "from": 50, "to": 50}}, "bad-value", 8),
    ({"layer": {"name": "l", "from": 0, "to": 101}}, "release-weight-value", 8),
    ({"holdout": {"name": "a:b", "percent": 5}}, "bad-value", 8),
    ({"audience": {}}, "bad-value", 8),
    ({"audience": {"plan": "pro"}}, "bad-value", 8),
    ({"audience": {"user": {}}}, "bad-value", 8),
    ({"audience": {"user": "pro"}}, "bad-value", 8),
    ({"audience": {"user": {"beta": True}}}, "bad-value", 8),
    ({"audience": {"user": {"plan": []}}}, "bad-value", 8),
    ({"audience": {"any": []}}, "bad-value", 8),
    ({"audience": {"any": {"user": {"a": "b"}}}}, "bad-value", 8),
    ({"audience": {"not": {}}}, "bad-value", 8),
    ({"audience": {"client_ip": ["10.0.0.0/33"]}}, "bad-value", 8),
    ({"audience": {"client_ip": []}}, "bad-value", 8),
    ({"audience": {"predicate": 5}}, "bad-value", 8),
    ({"audience": {"not": {"any": [{"predicate": ""}]}}}, "bad-value", 8),
    ({"fallback": {"on": ["crash"]}}, "bad-value", 8),
    ({"fallback": {"on": [99]}}, "bad-value", 8),
    ({"fallback": {"budget": {"interval": 0}}}, "bad-value", 8),
    ({"fallback": None, "on_zero": "stay"}, "wrong-type", 8),
    ({"steps": "auto"}, "release-steps", 6),
    ({"gray": ["gray"], "steps": "automatic"}, "wrong-type", 8),
    ({"response_header": "a b"}, "bad-value", 8),
    *(
        ({"response_header": name}, "bad-value", 8)
        for name in ("Content-Length", "connection", "keep-alive", "Set-Cookie")
    ),
    ({"never": {"file": "nobody.txt"}}, "release-list", 8),
    ({"stepz": "auto"}, "unknown-field", 8),
    ({"Steps": "auto"}, "unknown-field", 8),
    ({"analysiz": {}}, "unknown-field", 8),
    ({"enable": False}, "unknown-field", 8),
    ({"onFailure": "hold"}, "unknown-field", 8),
    ({"promot": "manual"}, "unknown-field", 8),
    ({"nevr": {"ids": ["a"]}}, "unknown-field", 8),
]


@pytest.mark.parametrize(("fields", "code", "line"), MISTAKES)
def test_a_mistake_is_named_with_its_line_and_sends_nobody_to_gray(fields: Any, code: str, line: int) -> None:
    rules = read_rules(MAPPINGS + release(**fields))
    first = (MAPPINGS + release()).split("\n").index("apiVersion: canary-mw/v1") + 1
    (only_error,) = {each for each in problems(rules) if each[0] == code}
    # What is of a wrong type is told what it must be.
    found = [each for each in rules.diagnostics if each.code == code]
    assert all(each.hint or (code == "wrong-type" and " must be " in each.message) for each in found), found
    assert not any("[str" in each.message or "Model" in each.message for each in found), found
    # The first document has five lines more before it.
    assert only_error[1] == first + line - 3
    assert rules.releases.in_force == ()
    if fields.get("gray") not in (20, {}):  # These name nobody who could be held back.
        assert shares(rules) == {"svc": 200}
        assert shares(rules, middleware=True).get("gray") is None


@pytest.mark.parametrize(("fields", "code", "line"), MISTAKES)
def test_a_mistake_leaves_the_last_good_release(fields: Any, code: str, line: int) -> None:
    good = read_rules(MAPPINGS + release(gray={"gray": 50}))
    before = shares(good)
    assert before["gray"] > 60
    # A document behind it, so that the file does not look as if it were cut off.
    after = read_rules(MAPPINGS + release(**fields) + document("other"), previous=good)
    assert code in {each for each, _ in problems(after)}
    assert shares(after) == before
    again = read_rules(MAPPINGS + document("other"), previous=after)
    assert again.releases.in_force == ()
    assert shares(again) == {"svc": 100, "gray": 100}


def test_a_list_of_names_waits_for_mappings_that_a_driver_makes_and_deletes() -> None:
    rules, seen = None, []
    for weight in (None, 0, 40, 100, 0, None):
        made = "" if weight is None else document("late", prefix="/svc/", weight=weight)
        rules = read_rules(STABLE + made + release(gray=["late"]), previous=rules)
        seen.append(shares(rules).get("late", 0))
        assert len(rules.releases.in_force) == 1
        found = [(each.code, each.severity) for each in rules.diagnostics if each.code == "release-unknown-mapping"]
        assert found == ([("release-unknown-mapping", "warning")] if weight is None else [])
    assert seen[0] == seen[1] == seen[4] == seen[5] == 0
    assert 0 < seen[2] < seen[3]


def test_a_list_none_of_whose_mappings_is_there_leaves_everybody_in_stable() -> None:
    rules = read_rules(STABLE + release(gray=["late"]) + document("other"))
    assert [(each.code, each.severity) for each in rules.diagnostics if each.severity != "notice"] == [
        ("release-unknown-mapping", "warning")
    ]
    assert shares(rules) == {"svc": 200}


def test_a_last_good_release_that_no_longer_fits_holds_its_gray_back() -> None:
    good = read_rules(MAPPINGS + release(gray={"gray": 50}))
    gone = read_rules(STABLE + release(gray={"gray": 50}) + document("other"), previous=good)
    assert [code for code, _ in problems(gone)] == ["release-unknown-mapping"]
    assert shares(gone) == {"svc": 200}
    back = read_rules(MAPPINGS + release(gray={"gray": 50}), previous=gone)
    assert shares(back) == shares(good)


@pytest.mark.parametrize("name", ["GreyRelease", "grayrelease", "Release"])
def test_a_misspelt_kind_sends_nobody_to_gray(name: str) -> None:
    rules = read_rules(MAPPINGS + release().replace("GrayRelease", name))
    assert [code for code, _ in problems(rules)] == ["unknown-kind"]
    assert shares(rules) == {"svc": 200}


@pytest.mark.parametrize("version", ["canary-mw/v2", "canary-mw.io/v2", "v1", "example.com/v1"])
def test_an_unknown_version_sends_nobody_to_gray(version: str) -> None:
    rules = read_rules(MAPPINGS + release().replace("canary-mw/v1", version))
    assert [code for code, _ in problems(rules)] == ["unknown-version"]
    assert shares(rules) == {"svc": 200}


def test_a_release_without_a_name_removes_nothing() -> None:
    good = read_rules(MAPPINGS + release(gray={"gray": 50}))
    nameless = read_rules(MAPPINGS + release(None, gray={"gray": 50}) + document("other"), previous=good)
    assert [code for code, _ in problems(nameless)] == ["no-name"]
    assert shares(nameless) == shares(good)
    assert shares(read_rules(MAPPINGS + release(None))) == {"svc": 200}


def test_where_the_stable_mapping_is_called_gray_too_it_goes_on_to_serve() -> None:
    swapped = {"gray": {"weight": 5}, "svc": {"weight": 5}}
    rules = read_rules(MAPPINGS + release(gray=swapped))
    assert [code for code, _ in problems(rules)] == ["release-no-stable"]
    assert shares(rules) == {"svc": 200}


@pytest.mark.parametrize("shape", ["flat", "crd", "crd group", "annotation", "config map"])
def test_a_release_stands_where_mappings_stand(shape: str) -> None:
    text = release(gray={"gray": 50})
    if shape.startswith("crd"):
        spec = "spec: {gray: {gray: 50}, sticky: [{header: k}]}\n"
        version = "canary-mw.io/v1" if shape == "crd group" else "canary-mw/v1"
        text = f"---\napiVersion: {version}\nkind: GrayRelease\nmetadata: {{name: r}}\n{spec}"
    whole = MAPPINGS + text
    if shape == "annotation":
        head = "apiVersion: v1\nkind: Service\nmetadata:\n  name: svc\n  annotations:\n    getambassador.io/config: |\n"
        whole = head + indent(whole, "      ")
    elif shape == "config map":
        whole = "apiVersion: v1\nkind: ConfigMap\ndata:\n  rules.yaml: |\n" + indent(whole, "    ")
    rules = read_rules(whole)
    assert problems(rules) == []
    assert shares(rules) == shares(read_rules(MAPPINGS + release(gray={"gray": 50})))


def test_a_release_for_another_id_is_passed_over() -> None:
    rules = read_rules(MAPPINGS + release(ambassador_id=["other"]))
    assert [each.code for each in rules.diagnostics if each.code == "other-ambassador-id"] == ["other-ambassador-id"]
    assert shares(rules) == {"svc": 100, "gray": 100}
    assert only(read_rules(MAPPINGS + release(ambassador_id=["other"]), ambassador_id="other")).name == "r"


def test_of_two_releases_of_a_name_the_later_one_counts() -> None:
    rules = read_rules(MAPPINGS + release(gray={"gray": 1}) + release(gray={"gray": 50}))
    assert [code for code, _ in problems(rules)] == ["duplicate-name"]
    assert only(rules).variants[0].slots == 500_000


def test_a_name_of_another_namespace_keeps_its_users() -> None:
    other = MAPPINGS.replace("/svc/", "/b/").replace("kind: Mapping", "kind: Mapping\nnamespace: b")
    second = release(gray={"gray": 50}).replace("kind:", "namespace: b\nkind:")
    rules = read_rules(MAPPINGS + release(gray={"gray": 50}) + other + second)
    assert problems(rules) == []
    one, two = rules.releases.in_force
    assert (one.name, two.name) == ("r", "r.b")
    assert one.hash == two.hash
    assert (one.gray_mappings, two.gray_mappings) == (("gray",), ("gray.b",))


def test_a_list_takes_the_weights_of_its_mappings() -> None:
    weighted = STABLE + document("gray", prefix="/svc/", weight=30)
    assert only(read_rules(weighted + release(gray=["gray"]))).variants[0].slots == 300_000
    assert only(read_rules(MAPPINGS + release(gray=["gray"]))).variants[0].slots == 0
    over = STABLE + document("gray", prefix="/svc/", weight=60) + document("b", prefix="/svc/", weight=60)
    assert "release-weights" in [code for code, _ in problems(read_rules(over + release(gray=["gray", "b"])))]


def test_a_group_has_one_release() -> None:
    three = MAPPINGS + document("b", prefix="/svc/")
    rules = read_rules(three + release("one") + release("two", gray={"b": 50}))
    assert [code for code, _ in problems(rules)] == ["release-conflict"]
    assert only(rules).name == "one"
    assert "b" not in shares(rules)


def layered(first: dict[str, Any], second: dict[str, Any]) -> RuleSet:
    others = document("a", prefix="/a/") + document("ag", prefix="/a/")
    one = release("one", layer={"name": "l", "from": 0, "to": 50}, **first)
    two = release("two", gray={"ag": 50}, layer={"name": "l", "from": 50, "to": 100}, **second)
    return read_rules(MAPPINGS + others + one + two)


def test_releases_of_a_layer_have_slices_and_keys_that_fit() -> None:
    assert problems(layered({}, {})) == []
    assert [code for code, _ in problems(layered({}, {"sticky": [{"cookie": "k"}]}))] == ["layer-key"]
    overlapping = {"layer": {"name": "l", "from": 49, "to": 60}}
    text = MAPPINGS + document("a", prefix="/a/") + document("ag", prefix="/a/")
    text += release("one", layer={"name": "l", "from": 0, "to": 50}) + release("two", gray={"ag": 5}, **overlapping)
    rules = read_rules(text)
    assert [code for code, _ in problems(rules)] == ["layer-overlap"]
    assert only(rules).name == "one"


def test_an_unknown_field_is_a_warning() -> None:
    """Those apart that would give gray to more people, or sooner."""
    rules = read_rules(MAPPINGS + release(sticki=[], owner="me", gray={"gray": {"weight": 5, "alway": {}}}))
    unknown = [each.message for each in rules.diagnostics if each.code == "unknown-field"]
    assert len(unknown) == 3
    assert only(rules).name == "r"


def test_what_may_not_be_meant_is_a_notice() -> None:
    rules = read_rules(MAPPINGS + release(revision="1", propagate={"hosts": ["a", "*.b:80"]}))
    found = Counter(each.code for each in rules.diagnostics if each.severity == "notice")
    assert (found["release-weight"], found["release-unguarded"]) == (1, 1)
    # `propagate` has an effect.
    assert found["no-effect-yet"] == 0


@pytest.mark.parametrize(
    ("value", "attribute"),
    [
        ({"hosts": ["a", "http://b"]}, "hosts"),
        ({"hosts": ["*"]}, "hosts"),
        *(
            ({"header": name}, "header")
            for name in ("Cookie", "X-Forwarded-Proto", "x_forwarded_for", "forwarded", "te")
        ),
    ],
)
def test_whom_a_release_cannot_tell_is_an_error(value: dict[str, Any], attribute: str) -> None:
    rules = read_rules(MAPPINGS + release(propagate=value))
    (found,) = (each for each in rules.diagnostics if each.severity == "error")
    assert found.message.startswith(f"GrayRelease r: propagate.{attribute}: ")
    assert found.hint


def test_an_edit_of_the_release_alone_is_a_new_table() -> None:
    before = read_rules(MAPPINGS + release(gray={"gray": 10}))
    after = read_rules(MAPPINGS + release(gray={"gray": 20}), previous=before)
    moved = read_rules("# a line more\n" + MAPPINGS + release(gray={"gray": 20}), previous=after)
    assert before.releases != after.releases
    assert after.releases == moved.releases
    assert only(moved).line == only(after).line + 1
    assert only(moved).line_of("gray.gray") == only(after).line_of("gray.gray") + 1


def test_a_new_mapping_of_a_release_in_error_gets_nothing_beside_the_last_good_one() -> None:
    good = read_rules(MAPPINGS + release(gray={"gray": 50}))
    more = MAPPINGS + document("b", prefix="/svc/")
    after = read_rules(more + release(gray={"gray": 50, "b": 51}) + document("other"), previous=good)
    assert [code for code, _ in problems(after)] == ["release-weights"]
    assert shares(after) == shares(good)
    assert after.releases.held_back == {"b"}


def test_a_release_in_error_takes_no_stable_mapping_from_another() -> None:
    rules = read_rules(MAPPINGS + release("one", gray={"gray": 50}) + release("two", gray={"svc": 101}))
    assert rules.releases.held_back == {"svc"}
    assert shares(rules) == shares(read_rules(MAPPINGS + release("one", gray={"gray": 50}, salt="one")))
