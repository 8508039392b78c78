import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rules import document

from canary_mw.cli.main import main

RULES = document("stable", prefix="/svc/") + document("gray", prefix="/svc/", weight=20, bypass_auth="true")
MODULE = "---\napiVersion: getambassador.io/v2\nkind: Module\nname: ambassador\nconfig: "


def invoke(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=stdin)


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("rules.yaml")
    path.write_text(RULES)
    return path


def test_check_of_clean_rules_prints_nothing_but_a_summary(rules: Path) -> None:
    rules.write_text(document("stable") + document("gray", prefix="/stable/", weight=5))
    outcome = invoke("check", str(rules))
    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (0, "", "2 Mappings: clean\n")


def test_check_prints_each_finding_with_its_position_and_exits_1_on_errors(rules: Path) -> None:
    rules.write_text(document(weight="x") + document("b", timeout=1) + document("c", docs="{}"))
    outcome = invoke("check", str(rules))
    assert outcome.exit_code == 1
    lines = outcome.stdout.splitlines()
    assert [line.split(" ")[:3] for line in lines] == [
        ["rules.yaml:7:", "error", "wrong-type"],
        ["rules.yaml:14:", "warning", "unknown-field"],
        ["rules.yaml:21:", "notice", "no-effect-yet"],
    ]
    assert lines[1].endswith("(did you mean timeout_ms?)")
    assert outcome.stderr == "2 Mappings: 1 error, 1 warning, 1 notice\n"


def test_check_exits_1_on_a_misspelt_attribute_that_decides_who_matches(rules: Path) -> None:
    rules.write_text(document() + document("b", wieght=1))
    outcome = invoke("check", str(rules))
    assert (outcome.exit_code, outcome.stderr) == (1, "1 Mapping: 1 error\n")


@pytest.mark.parametrize("others", ["", document(prefix="/b/")])
@pytest.mark.parametrize("weight", [-1, 101])
def test_check_exits_1_on_a_weight_outside_0_to_100_and_says_what_becomes_of_whom(
    rules: Path, weight: int, others: str
) -> None:
    rules.write_text(others + document("b", weight=weight))
    outcome = invoke("check", str(rules))
    assert outcome.exit_code == 1
    where = "over 100" if weight > 0 else "below 0"
    effect = "counts as 0 beside the other" if others else "takes all requests; in a middleware it takes none"
    assert f"error weight-range Mapping b: weight {weight} is {where}: " in outcome.stdout
    assert effect in outcome.stdout
    assert ("Mapping b: gets no request" in outcome.stdout) is bool(others)


def test_check_warns_of_copied_writes_and_lists_what_is_not_supported(rules: Path) -> None:
    shadow = document("copy", prefix="/a/", shadow="true", metadata_labels="{shadow_writes: allow}")
    host = "---\napiVersion: getambassador.io/v2\nkind: Host\nname: h\nhostname: a.com\n"
    rules.write_text(document() + shadow + host + MODULE + "{gzip: {}, server_name: edge}\n")
    outcome = invoke("check", str(rules))
    assert outcome.exit_code == 0
    assert "warning shadow-writes Mapping copy: writes are copied to copy too" in outcome.stdout
    assert (
        "notice kind-ignored Host h: ignored: host names and TLS of the way in are those of your Ingress"
        in outcome.stdout
    )
    assert "notice not-supported Module ambassador: gzip is not supported yet: ignored" in outcome.stdout


def test_check_warns_of_every_shadow_where_the_environment_lets_writes_be_copied(
    rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules.write_text(document("a", prefix="/a/") + document("copy", prefix="/a/", shadow="true"))
    assert "shadow-writes" not in invoke("check", str(rules)).stdout
    monkeypatch.setenv("CANARY_MW_SHADOW_WRITES", "1")
    assert "warning shadow-writes Mapping copy" in invoke("check", str(rules)).stdout


def test_check_prints_json_and_github_commands(rules: Path) -> None:
    rules.write_text(document(add_request_headers="{x: 5%}"))
    (found,) = json.loads(invoke("check", "--format", "json", str(rules)).stdout)
    assert (found["severity"], found["line"], found["mapping"], found["code"]) == ("error", 7, "a", "bad-value")
    outcome = invoke("check", "--format", "github", str(rules))
    assert outcome.exit_code == 1
    assert outcome.stdout.startswith("::error file=rules.yaml,line=7,title=bad-value::Mapping a: x: the value holds a ")
    assert "a bare %25 (write %25%25 for a percent sign)" in outcome.stdout


def test_check_and_explain_put_variables_in_as_serve_does_and_name_those_that_a_middleware_would_not(
    rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LISTED", "UNLISTED"):
        monkeypatch.setenv(f"CANARY_TEST_{name}", name.lower())
    monkeypatch.setenv("CANARY_MW_ENV_NAMES", "CANARY_TEST_LISTED")
    rules.write_text(
        document("a", service="$CANARY_TEST_LISTED")
        + document("b", service="${CANARY_TEST_UNLISTED}")
        + document("c", service="$CANARY_TEST_UNLISTED")
        + document("d", add_request_headers="{x-a: $CANARY_TEST_UNSET}")
    )
    notices = [
        "rules.yaml:12: notice unlisted-variable $CANARY_TEST_UNLISTED is put in here, but not in a middleware"
        " (for a middleware, list it in CANARY_MW_ENV_NAMES of the app, or write its value)",
        "rules.yaml:25: notice unknown-variable no value is known for $CANARY_TEST_UNSET: it stays as it is"
        " (set it; a middleware puts in only the variables listed in CANARY_MW_ENV_NAMES)",
    ]
    outcome = invoke("check", str(rules))
    assert (outcome.exit_code, outcome.stdout.splitlines()) == (0, notices)

    outcome = invoke("explain", str(rules), "GET", "/b/")
    assert "-> unlisted" in outcome.stdout
    assert sorted(outcome.stderr.splitlines()) == notices

    message = {"rules": rules.read_text(), "requests": []}
    (found,) = map(json.loads, invoke("explain", "--batch", stdin=json.dumps(message) + "\n").stdout.splitlines())
    assert {each["code"] for each in found["diagnostics"]} == {"unlisted-variable", "unknown-variable"}


@pytest.mark.usefixtures("rules")
def test_check_of_a_path_without_rules_is_an_error() -> None:
    Path("empty").mkdir()
    outcome = invoke("check", "empty")
    assert outcome.exit_code == 1
    assert "error empty-directory" in outcome.stdout
    assert invoke("check", "nowhere").exit_code == 2
    assert invoke("explain", "empty", "GET", "/").exit_code == 1


def test_explain_prints_every_outcome_with_its_share_and_what_is_kept(rules: Path) -> None:
    outcome = invoke("explain", str(rules), "GET", "/svc/a?b", "--host", "example.com")
    assert outcome.exit_code == 0
    assert outcome.stdout.splitlines() == [
        "20 %  gray    gray    -> gray",
        "              GET /a?b  host: example.com  timeout: 3 s",
        "              kept: bypass_auth: true",
        "80 %  stable  stable  -> stable",
        "              GET /a?b  host: example.com  timeout: 3 s",
        "",
        "groups, in the order of routing:",
        "  + stable + gray: prefix /svc/",
    ]


def test_explain_for_a_middleware_says_where_the_default_limit_ends(rules: Path) -> None:
    lines = invoke("explain", str(rules), "GET", "/svc/a", "--local", "stable").stdout.splitlines()
    assert lines[1].endswith("timeout: 3 s to the response head")


def explained(rules: Path, *arguments: str) -> Any:
    outcome = invoke("explain", str(rules), *arguments, "--json")
    assert outcome.exit_code == 0, outcome.output
    return json.loads(outcome.stdout)


def test_explain_as_json_is_a_result_of_the_batch(rules: Path) -> None:
    result = explained(rules, "GET", "/svc/a", "-H", "x-a: 1")
    assert [(c["mapping"], c["weight_percent"], c["attributes"]) for c in result["candidates"]] == [
        ("gray", 20, {"bypass_auth": True}),
        ("stable", 80, {}),
    ]
    request = {"method": "GET", "path": "/svc/a", "host": "localhost", "headers": {"x-a": "1"}}
    lines = f"{json.dumps({'rules': RULES, 'requests': [request]})}\n\n" * 2
    answers = [json.loads(line) for line in invoke("explain", "--batch", stdin=lines).stdout.splitlines()]
    assert [answer["results"] for answer in answers] == [[result], [result]]


def test_explain_obeys_the_module(rules: Path) -> None:
    rules.write_text(RULES + MODULE + "{merge_slashes: true, ip_deny: [{peer: 127.0.0.1}]}\n")
    (denied,) = explained(rules, "GET", "/svc/a")["candidates"]
    assert denied["status"] == 403
    assert "answered 403" in invoke("explain", str(rules), "GET", "/svc/a").stdout
    (denied,) = explained(rules, "GET", "/svc/a", "--local", "stable")["candidates"]
    assert (denied["status"], denied["service"]) == (403, None)
    rules.write_text(RULES + MODULE + "{merge_slashes: true, headers_with_underscores_action: DROP_HEADER}\n")
    found = explained(rules, "GET", "//svc//a", "-H", "x_u: 1")["candidates"]
    assert [(c["upstream"]["path"], c["upstream"]["headers_removed"]) for c in found] == [("/a", ["x_u"])] * 2


def test_explain_shows_the_wrapped_app_redirects_and_missing_matches(rules: Path) -> None:
    assert "the wrapped app answers" in invoke("explain", str(rules), "GET", "/none", "--local", "stable").stdout
    assert "100 %  -  (no Mapping)  answered 404" in invoke("explain", str(rules), "GET", "/none").stdout
    rules.write_text(document(host_redirect="true", service="new.com", timeout_ms=0))
    assert "answered 301 http://new.com/a/b" in invoke("explain", str(rules), "GET", "/a/b").stdout
    rules.write_text(document(timeout_ms=0) + document("h", prefix="/a/b", headers="{gray: true}"))
    text = invoke("explain", str(rules), "GET", "/a/b").stdout
    assert "timeout: none" in text
    assert "  - h: not: header gray present" in text


def test_explain_names_broken_rules_with_its_answer(rules: Path) -> None:
    rules.write_text(RULES + document("c", weight="x"))
    outcome = invoke("explain", str(rules), "GET", "/svc/")
    assert outcome.exit_code == 0
    assert "rules.yaml:21: error wrong-type" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["rules.yaml"], "PATH, METHOD and TARGET are needed"),
        (["rules.yaml", "GET", "/a#b"], "/a#b: the path holds a fragment"),
        (["rules.yaml", "NOVELTY", "/"], "the method is unknown; such a request is answered 400"),
        (["rules.yaml", "GET", "/", "-H", "gray"], "write 'name: value'"),
        (["rules.yaml", "GET", "/", "-H", ": a"], "write 'name: value'"),
    ],
)
@pytest.mark.usefixtures("rules")
def test_wrong_usage_of_explain_is_explained(arguments: list[str], text: str) -> None:
    outcome = invoke("explain", *arguments)
    assert outcome.exit_code == 2
    assert text in outcome.stderr


@pytest.mark.parametrize("gray", ["{shop-canary: 20}", "[shop-canary]"])
def test_a_release_whose_versions_are_one_service_divides_nothing(tmp_path: Path, gray: str) -> None:
    """As where the service of the base does not name stableService of Argo Rollouts."""
    file = tmp_path / "rules.yaml"
    release = f"""---
apiVersion: canary-mw/v1
kind: GrayRelease
name: shop
gray: {gray}
sticky: {{header: x-user}}
fallback: {{}}
"""
    both = [document(name, prefix="/shop/", service="of-all") for name in ("shop", "shop-canary")]
    file.write_text("".join(both) + release)
    outcome = CliRunner().invoke(main, ["check", str(file)])
    assert "warning same-service Mapping shop-canary: it leads to of-all as shop does" in outcome.stdout
    assert "the release divides nothing" in outcome.stdout
    file.write_text(both[0] + both[1].replace("of-all", "own") + release)
    assert "same-service" not in CliRunner().invoke(main, ["check", str(file)]).stdout
