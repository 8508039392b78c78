"""The plan of a GrayRelease: steps, analysis, bake and hooks as values, and what is wrong with them, with its line."""

import json
from collections import Counter
from typing import Any

import pytest
from jsonschema import Draft7Validator
from rules import document, get, read_rules

from canary_mw.config.parser import RuleSet
from canary_mw.config.reference.json_schema import document_schema
from canary_mw.routing.decision import decide
from canary_mw.routing.table import RouteTable
from canary_mw.rules.epoch import subject_of
from canary_mw.rules.plan import HOOK_TYPES, NO_ALLOWANCE, Allowance, Plan, plan_digest
from canary_mw.rules.queries.query import Query
from canary_mw.rules.release import GrayRelease

MAPPINGS = document("svc", prefix="/svc/") + document("gray", prefix="/svc/", weight=0)
OTHER = document("other")
AUTO: list[dict[str, Any]] = [{"setWeight": 5}, {"pause": {"duration": "10m"}}, {"setWeight": 100}]


def release(**fields: Any) -> str:
    """A GrayRelease, a field to a line from line 4 on, and an item of steps or hooks to a line below it."""
    given: dict[str, Any] = {"gray": ["gray"], "sticky": [{"header": "k"}], "fallback": {}, **fields}
    lines: list[str] = []
    for key, value in given.items():
        if key in ("steps", "hooks") and isinstance(value, list) and value:
            lines += [f"{key}:", *(f"- {json.dumps(each)}" for each in value)]
        elif value is not None:
            lines.append(f"{key}: {json.dumps(value)}")
    return "\n".join(["---", "apiVersion: canary-mw/v1", "kind: GrayRelease", "name: r", *lines, ""])


def planned(mappings: str = MAPPINGS, **fields: Any) -> Plan:
    fields = {"steps": AUTO, **fields}
    rules = read_rules(mappings + release(**fields))
    assert problems(rules) == []
    (found,) = rules.releases.in_force
    assert found.plan is not None
    return found.plan


def problems(rules: RuleSet) -> list[tuple[str, int | None]]:
    return [(each.code, each.line) for each in rules.diagnostics if each.severity == "error"]


def codes(rules: RuleSet, severity: str) -> set[str]:
    return {each.code for each in rules.diagnostics if each.severity == severity}


def shares(rules: RuleSet) -> dict[str | None, int]:
    table = RouteTable.build(rules.mappings, middleware=False, releases=rules.releases)
    counted: Counter[str | None] = Counter()
    for number in range(200):
        decision = decide(table, get("/svc/", {"k": f"user-{number}"}), number / 2 + 0.25)
        counted[decision.mapping.name if decision else None] += 1
    return dict(counted)


def test_auto_and_an_empty_analysis_are_a_whole_release() -> None:
    plan = planned(steps="auto", analysis={})
    assert [(each.weights["gray"], each.pause) for each in plan.stages] == [
        (1, 600),
        (5, 600),
        (25, 600),
        (50, 600),
        (100, 0),
    ]
    assert [each.item for each in plan.stages] == [1, 3, 5, 7, 9]
    assert (plan.items, plan.bake, plan.holdback, plan.promote, plan.on_failure) == (9, 0, 0, "auto", "rollback")
    found = plan.stages[0].analysis
    assert found is not None
    assert (found.mode, found.alpha, found.margin, found.minimum_keys, found.timeout, found.on_timeout) == (
        "act",
        0.01,
        0.005,
        20,
        21_600,
        "hold",
    )
    errors, latency = found.metrics
    assert (errors.name, errors.kind, errors.margin, errors.on_failure) == ("error_rate", "error_rate", 0.005, None)
    assert (errors.minimum_failures, errors.ignore_below, errors.tolerated, errors.share) == (5, 0.001, 1, 1)
    assert (latency.name, latency.quantiles, latency.threshold, latency.margin) == (
        "latency",
        (0.95, 0.99),
        None,
        0.02,
    )


def test_a_release_with_a_plan_begins_at_weight_0() -> None:
    heavy = document("svc", prefix="/svc/") + document("gray", prefix="/svc/", weight=80)
    rules = read_rules(heavy + release(steps="auto", analysis={}))
    assert problems(rules) == []
    assert shares(rules) == {"svc": 200}
    assert read_rules(MAPPINGS + release(gray={"gray": 5})).releases.in_force[0].plan is None


def test_the_steps_are_read_into_stages() -> None:
    steps: list[dict[str, Any]] = [
        {"setWeight": 1},
        {"pause": {"duration": "10m"}},
        {"pause": {"duration": 30}},
        {"setWeight": 25},
        {"pause": {}},
        {"analysis": {"metrics": [{"name": "paid", "kind": "event", "direction": "decrease", "share": 2}]}},
        {"setWeight": 50},
    ]
    plan = planned(steps=steps, analysis={"margin": "1%"}, bake={"duration": "1h", "holdback": "5%"})
    assert [(each.weights, each.pause, each.until_promoted, each.item) for each in plan.stages] == [
        ({"gray": 1}, 630, False, 1),
        ({"gray": 25}, 0, True, 4),
        ({"gray": 50}, 0, False, 7),
        ({"gray": 95}, 0, False, 8),
    ]
    assert (plan.items, plan.bake, plan.holdback) == (7, 3600, 5)
    names = [[metric.name for metric in each.analysis.metrics] for each in plan.stages if each.analysis]
    assert names == [["error_rate", "latency"]] + 3 * [["error_rate", "latency", "paid"]]
    assert plan.full_weights == {"gray": 95}
    assert plan.weights_at(40) == {"gray": 40}


@pytest.mark.parametrize(
    ("written", "threshold", "quantiles", "margin"),
    [
        ({}, None, (0.5, 0.9), 0.02),
        ({"quantiles": ["p99"], "margin": "0.1%"}, None, (0.99,), 0.001),
        ({"threshold": 12.5, "direction": "decrease"}, 12.5, (), 0.02),
        ({"threshold": 0}, 0.0, (), 0.02),
    ],
)
def test_a_metric_of_values_has_quantiles_or_a_number(
    written: dict[str, Any], threshold: float | None, quantiles: tuple[float, ...], margin: float
) -> None:
    plan = planned(steps="auto", analysis={"metrics": [{"name": "basket", "kind": "value", **written}]})
    assert plan.stages[0].analysis is not None
    (rule,) = plan.stages[0].analysis.metrics
    assert (rule.kind, rule.threshold, rule.quantiles, rule.margin) == ("value", threshold, quantiles, margin)
    assert (rule.allow, rule.direction) == (NO_ALLOWANCE, written.get("direction", "increase"))


def test_a_metric_with_a_provider_is_a_query_beside_the_others() -> None:
    written = {
        **QUERY,
        "interval": "5m",
        "failureCondition": "any(result, # > 2)",
        "failureLimit": 3,
        "on_failure": "hold",
    }
    later = {
        **QUERY,
        "name": "other",
        "provider": {"prometheus": {"address": "http://p", "query": "x", "timeout": "3s"}},
    }
    steps = [*AUTO[:2], {"setWeight": 20}, {"analysis": {"metrics": [later]}}, {"setWeight": 100}]
    first, second, _ = planned(steps=steps, analysis={"metrics": [written]}).stages
    assert first.analysis is not None
    assert second.analysis is not None
    # A query is judged besides, and never alone.
    assert [each.name for each in first.analysis.metrics] == ["error_rate", "latency"]
    (query,) = first.analysis.queries
    assert query == Query(
        "load",
        "http://prometheus:9090/base",
        "up{r='{{ release }}'}",
        success="result[0] < 0.8",
        failure="any(result, # > 2)",
        interval=300,
        failure_limit=3,
        on_failure="hold",
    )
    assert second.analysis.metrics == first.analysis.metrics
    assert [(each.name, each.timeout, each.interval) for each in second.analysis.queries] == [
        ("load", 10, 300),
        ("other", 3, 60),
    ]
    beside = planned(steps=AUTO, analysis={"metrics": [QUERY, {"name": "error_rate"}]}).stages[0].analysis
    assert beside is not None
    assert ([each.name for each in beside.metrics], len(beside.queries)) == (["error_rate"], 1)


def test_analysis_as_a_step_replaces_by_name_and_keeps_the_rest() -> None:
    change = {"alpha": "0.5%", "metrics": [{"name": "latency", "threshold": "250ms"}]}
    steps = [*AUTO[:2], {"setWeight": 20}, {"analysis": change}, {"setWeight": 100}]
    first, second, _ = planned(steps=steps, analysis={"minimum_keys": 7, "margin": "3%"}).stages
    assert first.analysis is not None
    assert second.analysis is not None
    assert (first.analysis.alpha, second.analysis.alpha) == (0.01, 0.005)
    assert second.analysis.minimum_keys == 7
    assert [(each.name, each.threshold, each.quantiles, each.margin) for each in second.analysis.metrics] == [
        ("error_rate", None, (), 0.03),
        ("latency", 0.25, (), 0.03),
    ]
    only_there = planned(steps=[{"analysis": {}}, *AUTO]).stages
    assert all(each.analysis is not None and len(each.analysis.metrics) == 2 for each in only_there)
    assert [each.analysis for each in planned().stages] == [None, None]


@pytest.mark.parametrize(
    ("gray", "weights"),
    [
        (["gray", "b", "c"], {"gray": 1.6668, "b": 1.6666, "c": 1.6666}),
        ({"gray": {"share": 2}, "b": {"share": 1}, "c": {}}, {"gray": 2.5, "b": 1.25, "c": 1.25}),
        ({"gray": {"share": 0.7}, "b": {"share": 0.1}, "c": {"share": 0.2}}, {"gray": 3.5, "b": 0.5, "c": 1}),
    ],
)
def test_the_weight_of_a_step_is_divided_by_shares(gray: Any, weights: dict[str, float]) -> None:
    more = MAPPINGS + document("b", prefix="/svc/", weight=0) + document("c", prefix="/svc/", weight=0)
    plan = planned(more, gray=gray)
    assert plan.stages[0].weights == weights
    assert sum(plan.full_weights.values()) == pytest.approx(100, abs=1e-9)
    before = dict.fromkeys(weights, 0.0)
    for percent in range(1, 101):
        now = plan.weights_at(percent)
        assert all(now[name] >= before[name] for name in weights)
        assert sum(now.values()) == pytest.approx(percent, abs=1e-9)
        before = dict(now)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        *(("10m", 600), ("1h30m", 5400), ("90s", 90), (90, 90), ("90", 90), (0, 0), (1.5, 1.5), ("1.5h", 5400)),
        *(("500ms", 0.5), ("250us", 0.00025), ("2m0.5s", 120.5), ("0s", 0), (".5s", 0.5)),
    ],
)
def test_durations_are_those_of_go_and_numbers_of_seconds(written: Any, seconds: float) -> None:
    steps = [{"setWeight": 5}, {"pause": {"duration": written}}]
    assert planned(steps=steps).stages[0].pause == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("written", "share"), [("1%", 0.01), (1, 0.01), ("0.5%", 0.005), (0.25, 0.0025), ("10 %", 0.1)]
)
def test_rates_are_percents(written: Any, share: float) -> None:
    found = planned(analysis={"alpha": written, "margin": written}).stages[0].analysis
    assert found is not None
    assert (found.alpha, found.margin) == (share, share)


@pytest.mark.parametrize(
    ("written", "allowed"),
    [("10ms", (0.01, 0)), ("10%", (0, 0.1)), (2, (2, 0)), ("0%", (0, 0)), ("0ms", (0, 0)), (None, (0.01, 0))],
)
def test_an_allowance_is_a_time_or_a_percent(written: Any, allowed: tuple[float, float]) -> None:
    metric = {"name": "latency", **({} if written is None else {"allow": written})}
    found = planned(analysis={"metrics": [metric]}).stages[0].analysis
    assert found is not None
    assert found.metrics[0].allow == Allowance(*allowed)
    assert Allowance(0.01, 0.1).taken_off(0.12) == pytest.approx(0.1)
    assert Allowance(0.01).taken_off(0.005) == 0


@pytest.mark.parametrize("kind", HOOK_TYPES)
def test_the_hooks_of_flagger_are_known(kind: str) -> None:
    written = [
        {"type": kind, "url": "https://gate:8080/approve?x=1", "timeout": "5s", "metadata": {"b": "1", "a": "2"}}
    ]
    (hook,) = planned(hooks=written).hooks
    assert (hook.type, hook.url, hook.timeout, hook.name) == (kind, "https://gate:8080/approve?x=1", 5, kind)
    assert (hook.metadata, hook.muted) == ((("a", "2"), ("b", "1")), False)
    assert planned(hooks=[{"type": kind, "url": "http://g", "name": "n", "muteAlert": True}]).hooks[0].muted


QUERY: dict[str, Any] = {
    "name": "load",
    "provider": {"prometheus": {"address": "http://prometheus:9090/base/", "query": "up{r='{{ release }}'}"}},
    "successCondition": "result[0] < 0.8",
}


LOAD = {"name": "load", "kind": "event"}


def asked(changes: dict[str, Any], **provider: Any) -> dict[str, Any]:
    """A release with one query."""
    prometheus = QUERY["provider"]["prometheus"] | provider
    return {"steps": AUTO, "analysis": {"metrics": [{**QUERY, "provider": {"prometheus": prometheus}, **changes}]}}


def one(metric: dict[str, Any]) -> dict[str, Any]:
    return {"steps": AUTO, "analysis": {"metrics": [metric]}}


def then(step: Any, **fields: Any) -> dict[str, Any]:
    return {"steps": [{"setWeight": 5}, step], **fields}


# A mistake, its code, and its line in the text of `release`: gray is on 5, steps on 8 with its items from 9 on; what
# follows three steps is on 12.
MISTAKES: list[tuple[dict[str, Any], str, int]] = [
    ({"gray": {"gray": 5}, "steps": "auto"}, "release-steps", 5),
    ({"gray": {"gray": {"weight": 5}}, "steps": "auto"}, "release-steps", 5),
    ({"gray": {"gray": {"weight": 5, "share": 1}}, "steps": "auto"}, "release-steps", 5),
    ({"gray": {"gray": {"share": 0}}, "steps": "auto"}, "bad-value", 5),
    ({"gray": {"gray": {"share": 1}}}, "release-steps", 5),
    ({"steps": []}, "release-steps", 8),
    ({"steps": [{"pause": {}}, {"setWeight": 5}]}, "release-steps", 9),
    ({"steps": [{"setWeight": 0}, {"setWeight": 5}]}, "release-steps", 9),
    ({"steps": [{"analysis": {}}]}, "release-steps", 8),
    (then({"setWeight": 4}), "release-steps", 10),
    (then({"setWeight": 101}), "release-weight-value", 10),
    (then({"setWeight": 5.00001}), "release-weight-value", 10),
    (then({"setWeight": "10"}), "wrong-type", 10),
    (then({"setWeight": None}), "wrong-type", 10),
    (then({"pause": None}), "wrong-type", 10),
    (then({}), "release-steps", 10),
    (then({"setWeight": 10, "pause": {}}), "release-steps", 10),
    (then({"setWieght": 10}), "unknown-field", 10),
    (then({"setCanaryScale": {"weight": 5}}), "unknown-field", 10),
    (then({"pause": {"durations": "10m"}}), "unknown-field", 10),
    (then({"pause": {"duration": "1d"}}), "bad-value", 10),
    (then({"pause": {"duration": "-1m"}}), "bad-value", 10),
    (then({"pause": {"duration": ""}}), "bad-value", 10),
    (then({"pause": {"duration": "1e3"}}), "bad-value", 10),
    (then({"pause": {"duration": 1e300}}), "bad-value", 10),
    (then({"pause": "10m"}), "wrong-type", 10),
    (then({"analysis": {"alpha": "2%"}}, analysis={}), "bad-value", 10),
    (then({"analysis": {"metrics": [{"name": "eror_rate"}]}}), "bad-value", 10),
    ({"steps": "auto", "hash": "unleash", "gray": ["gray"], "bake": {"holdback": 0.5}}, "release-weight-value", 8),
    ({"steps": "auto", "bake": {"holdback": 100}}, "bad-value", 9),
    ({"steps": "auto", "bake": {"holdbck": 5}}, "unknown-field", 9),
    ({"steps": "auto", "bake": {"duration": "soon"}}, "bad-value", 9),
    ({"steps": "auto", "promote": "never"}, "wrong-type", 9),
    ({"steps": "auto", "on_failure": "ignore"}, "wrong-type", 9),
    ({"steps": AUTO, "analysis": {"alpha": "11%"}}, "bad-value", 12),
    ({"steps": AUTO, "analysis": {"alpha": 0}}, "bad-value", 12),
    ({"steps": AUTO, "analysis": {"alpha": "1"}}, "bad-value", 12),
    ({"steps": AUTO, "analysis": {"margin": 0}}, "bad-value", 12),
    ({"steps": AUTO, "analysis": {"margin": None}}, "wrong-type", 12),
    ({"steps": AUTO, "analysis": {"margn": "0.1%"}}, "unknown-field", 12),
    ({"steps": AUTO, "analysis": {"minimum_keys": 0}}, "bad-value", 12),
    ({"steps": AUTO, "analysis": {"timeout": 0}}, "bad-value", 12),
    ({"steps": AUTO, "analysis": {"on_timeout": "pass"}}, "wrong-type", 12),
    ({"steps": AUTO, "analysis": {"metrics": []}}, "bad-value", 12),
    (one({"kind": "event"}), "wrong-type", 12),
    (one({"name": "saved"}), "bad-value", 12),
    (one({"name": "latncy"}), "bad-value", 12),
    (one({"name": "saved", "kind": "events"}), "bad-value", 12),
    (one({"name": "saved", "kind": "latency"}), "bad-value", 12),
    (one({"name": "latency", "kind": "event"}), "bad-value", 12),
    (one({"name": "a b", "kind": "event"}), "bad-value", 12),
    (one({"name": "basket", "kind": "value", "threshold": "1s"}), "bad-value", 12),
    (one({"name": "basket", "kind": "value", "threshold": -1}), "bad-value", 12),
    (one({"name": "basket", "kind": "value", "threshold": 5, "quantiles": ["p50"]}), "bad-value", 12),
    (one({"name": "basket", "kind": "value", "allow": "10ms"}), "bad-value", 12),
    (one({"name": "basket", "kind": "value", "quantiles": []}), "bad-value", 12),
    (one({"name": "a b", "kind": "value"}), "bad-value", 12),
    (one({"name": "latency", "kind": "value"}), "bad-value", 12),
    (one({"name": "paid", "kind": "event", "threshold": 5}), "bad-value", 12),
    (asked({"name": "a b"}), "bad-value", 12),
    (asked({"name": "latency"}), "bad-value", 12),
    (asked({"successCondition": ""}), "bad-value", 12),
    (asked({"successCondition": "result[0] <"}), "bad-value", 12),
    (asked({"successCondition": "default(result, 0) < 1"}), "bad-value", 12),
    (asked({"failureCondition": "result[0]"}), "bad-value", 12),
    (asked({"failureLimit": -1}), "bad-value", 12),
    (asked({"interval": "0.5s"}), "bad-value", 12),
    (asked({"kind": "value"}), "bad-value", 12),
    (asked({"share": 2}), "bad-value", 12),
    (asked({"margin": "1%"}), "bad-value", 12),
    (asked({"count": 3}), "unknown-field", 12),
    (asked({"provider": {"web": {"url": "http://g"}}}), "unknown-field", 12),
    (asked({"provider": {}}), "bad-value", 12),
    (asked({"provider": {"prometheus": {"query": "up"}}}), "wrong-type", 12),
    (asked({}, query=""), "bad-value", 12),
    (asked({}, query="up{release='{{name}}'}"), "bad-value", 12),
    (asked({}, address="prometheus:9090"), "bad-value", 12),
    (asked({}, address="ftp://prometheus"), "bad-value", 12),
    (asked({}, address="http://user:secret@prometheus"), "bad-value", 12),
    (asked({}, address="http://prometheus:99999"), "bad-value", 12),
    (asked({}, address="http://prometheus/?a=b"), "bad-value", 12),
    (asked({}, timeout="2m"), "bad-value", 12),
    (asked({}, timeout=0), "bad-value", 12),
    (asked({}, headers=[]), "unknown-field", 12),
    (one({"name": "error_rate", "interval": "1m"}), "bad-value", 12),
    (one({"name": "error_rate", "failureLimit": 2}), "bad-value", 12),
    ({"steps": AUTO, "analysis": {"metrics": [QUERY, QUERY]}}, "bad-value", 12),
    ({"steps": AUTO, "analysis": {"metrics": [LOAD, QUERY]}}, "bad-value", 12),
    (then({"analysis": {"metrics": [QUERY]}}, analysis={"metrics": [LOAD]}), "bad-value", 10),
    ({"steps": AUTO, "analysis": {"metrics": [{**QUERY, "name": f"q{each}"} for each in range(17)]}}, "bad-value", 12),
    (one({"name": "error_rate", "threshold": "1s"}), "bad-value", 12),
    (one({"name": "error_rate", "direction": "decrease"}), "bad-value", 12),
    (one({"name": "error_rate", "share": 0}), "bad-value", 12),
    (one({"name": "error_rate", "tolerated": 0.5}), "bad-value", 12),
    (one({"name": "error_rate", "minimum_failures": 0}), "bad-value", 12),
    (one({"name": "error_rate", "ignore_below": "-1%"}), "bad-value", 12),
    (one({"name": "latency", "quantiles": ["95"]}), "bad-value", 12),
    (one({"name": "latency", "quantiles": ["p0"]}), "bad-value", 12),
    (one({"name": "latency", "quantiles": ["p100"]}), "bad-value", 12),
    (one({"name": "latency", "quantiles": []}), "bad-value", 12),
    (one({"name": "latency", "quantiles": ["p95"], "threshold": "1s"}), "bad-value", 12),
    (one({"name": "latency", "allow": "a bit"}), "bad-value", 12),
    ({"steps": AUTO, "analysis": {"metrics": [{"name": "latency"}, {"name": "latency"}]}}, "bad-value", 12),
    ({"steps": AUTO, "hooks": [{"type": "confirm", "url": "http://g"}]}, "wrong-type", 13),
    ({"steps": AUTO, "hooks": [{"type": "event"}]}, "wrong-type", 13),
    ({"steps": AUTO, "hooks": [{"type": "event", "url": "ftp://g/"}]}, "bad-value", 13),
    ({"steps": AUTO, "hooks": [{"type": "event", "url": "http://"}]}, "bad-value", 13),
    ({"steps": AUTO, "hooks": [{"type": "event", "url": "http://g:x/"}]}, "bad-value", 13),
    ({"steps": AUTO, "hooks": [{"type": "event", "url": "http://g/a b"}]}, "bad-value", 13),
    ({"steps": AUTO, "hooks": [{"type": "event", "url": "/gate"}]}, "bad-value", 13),
    ({"steps": AUTO, "hooks": [{"type": "event", "url": "http://g", "timeout": 0}]}, "bad-value", 13),
    ({"steps": AUTO, "hooks": [{"type": "event", "url": "http://g", "retry": 2}]}, "unknown-field", 13),
]


@pytest.mark.parametrize(("fields", "code", "line"), MISTAKES)
def test_a_mistake_is_named_with_its_line_and_sends_nobody_to_gray(fields: Any, code: str, line: int) -> None:
    first = MAPPINGS.count("\n")
    rules = read_rules(MAPPINGS + release(**fields))
    (found,) = [each for each in rules.diagnostics if each.severity == "error"]
    assert (found.code, (found.line or 0) - first) == (code, line), found
    assert "GrayRelease r: " in found.message
    assert found.hint or " must be " in found.message or "is missing" in found.message, found
    assert rules.releases.in_force == ()
    assert shares(rules) == {"svc": 200}


@pytest.mark.parametrize(("fields", "code", "line"), MISTAKES[::6])
def test_a_mistake_leaves_the_last_good_release(fields: Any, code: str, line: int) -> None:
    good = read_rules(MAPPINGS + release(steps=AUTO, analysis={}))
    after = read_rules(MAPPINGS + release(**fields) + OTHER, previous=good)
    assert code in {each for each, _ in problems(after)}
    assert after.releases.in_force == good.releases.in_force


def test_all_mistakes_are_told_at_once() -> None:
    wrong = {"analysis": {"alpha": "50%"}, "bake": {"duration": "x"}, "hooks": [{"type": "event", "url": "g"}]}
    rules = read_rules(MAPPINGS + release(gray={"gray": 5}, steps=AUTO, **wrong))
    assert sorted(code for code, _ in problems(rules)) == 3 * ["bad-value"] + ["release-steps"]


@pytest.mark.parametrize("name", ["analysis", "bake", "promote", "on_failure", "hooks"])
def test_what_needs_steps_says_so(name: str) -> None:
    values = {"analysis": {}, "bake": {}, "promote": "manual", "on_failure": "hold", "hooks": []}
    rules = read_rules(MAPPINGS + release(gray={"gray": 5}, **{name: values[name]}))
    assert codes(rules, "warning") == {"release-steps"}
    assert len(rules.releases.in_force) == 1
    assert codes(read_rules(MAPPINGS + release(steps=AUTO, **{name: values[name]})), "warning") == set()


def test_two_mappings_of_a_group_with_one_service_compare_nothing() -> None:
    same = {"prefix": "/svc/", "service": "svc:80"}
    mappings = document("svc", **same) + document("gray", weight=0, **same)
    rules = read_rules(mappings + release(steps=AUTO))
    assert [code for code, _ in problems(rules)] == ["release-mapping"]
    assert read_rules(mappings + release(gray={"gray": 5})).releases.in_force
    other_path = document("svc", **same) + document("gray", weight=0, rewrite="/v2/", **same)
    assert problems(read_rules(other_path + release(steps=AUTO))) == []


@pytest.mark.parametrize("governed", ["svc-canary", "gray"])
def test_a_mapping_that_argo_rollouts_drives_is_not_driven_here(governed: str) -> None:
    """Its canary may be the gray Mapping itself, or come beside one that the release governs."""

    def rules_at(weight: int, name: str = "svc-canary", more: Any = None, **fields: Any) -> RuleSet:
        made = document(name, prefix="/svc/", service="new", weight=weight, **(more or {}))
        mine = "" if governed == "svc-canary" else document("gray", prefix="/svc/", weight=0)
        return read_rules(document("svc", prefix="/svc/") + made + mine + release(gray=[governed], **fields))

    # Argo writes 0 at an abort, and before it deletes the Mapping.
    for weight in (5, 0, 100):
        assert "release-drivers" in {code for code, _ in problems(rules_at(weight, steps=AUTO))}
        assert rules_at(weight, steps=AUTO).releases.in_force == ()
        assert shares(rules_at(weight, steps=AUTO)).get("svc-canary", 0) == (
            0 if governed == "svc-canary" else 2 * weight
        )
        # Argo drives, and users stay in their version.
        assert problems(rules_at(weight)) == []
    # At weight 0 one of one's own is told by its other attributes; Argo copies them.
    assert problems(rules_at(0, more={"timeout_ms": 500}, steps=AUTO)) == []
    if governed == "gray":
        assert problems(rules_at(0, "other-canary", steps=AUTO)) == []


@pytest.mark.parametrize(
    ("sticky", "missing", "is_forgeable"),
    [
        ([{"header": "x-user"}], None, True),
        ([{"cookie": "uid"}, {"query": "uid"}], None, True),
        (None, None, True),
        (None, "roll", False),
        ([{"user": "id"}], None, False),
        ([{"session": "id"}, {"header": "x-user"}], None, False),
        (["client_ip"], None, False),
    ],
)
def test_evidence_that_clients_can_forge_is_a_notice(sticky: Any, missing: str | None, is_forgeable: bool) -> None:
    fields = {"sticky": sticky, "missing": missing, "steps": AUTO}
    judged = read_rules(MAPPINGS + release(analysis={}, **fields))
    assert ("evidence-forgeable" in codes(judged, "notice")) is is_forgeable
    # What is not judged cannot be steered.
    assert "evidence-forgeable" not in codes(read_rules(MAPPINGS + release(**fields)), "notice")


@pytest.mark.parametrize(
    ("prefix", "rewrite", "is_lost"),
    [
        ("/svc/", None, True),
        ("/svc/", '""', False),
        ("/svc/", "/svc/", False),
        ("/svc/", "/v2/", True),
        ("/", None, False),
    ],
)
def test_events_of_pods_of_gray_that_get_another_path_are_a_notice(
    prefix: str, rewrite: str | None, is_lost: bool
) -> None:
    mappings = document("svc", prefix=prefix) + document("gray", prefix=prefix, weight=0, rewrite=rewrite)
    metrics = [{"name": "error_rate"}, {"name": "paid", "kind": "event"}]
    found = read_rules(mappings + release(steps=AUTO, analysis={"metrics": metrics}))
    assert ("evidence-elsewhere" in codes(found, "notice")) is is_lost
    # What the proxy measures counts where it was drawn.
    assert "evidence-elsewhere" not in codes(read_rules(mappings + release(steps=AUTO, analysis={})), "notice")


def test_a_first_step_with_too_few_users_is_a_warning() -> None:
    def found(users: int, **fields: Any) -> set[str]:
        audience = {"header": {"k": [f"user-{number}" for number in range(users)]}}
        return codes(read_rules(MAPPINGS + release(steps=AUTO, audience=audience, **fields)), "warning")

    assert found(399, analysis={}) == {"release-keys"}
    assert found(400, analysis={}) == set()
    assert found(40, analysis={"minimum_keys": 2}) == set()
    assert found(5) == set()
    halved = {"layer": {"name": "l", "from": 0, "to": 50}, "holdout": {"name": "h", "percent": 50}}
    assert found(1599, analysis={}, **halved) == {"release-keys"}
    assert found(1600, analysis={}, **halved) == set()
    by_another = {"cookie": {"plan": ["pro"]}}
    rules = read_rules(MAPPINGS + release(steps=AUTO, analysis={}, audience=by_another))
    assert codes(rules, "warning") == set()


def test_a_mapping_that_is_not_there_is_an_error_where_steps_drive() -> None:
    rules = read_rules(document("svc", prefix="/svc/") + release(steps=AUTO))
    assert [code for code, _ in problems(rules)] == ["release-unknown-mapping"]


def test_the_digest_is_of_the_steps_so_far() -> None:
    def digests(*weights: float, pause: str = "10m", **fields: Any) -> list[str]:
        steps = [step for each in weights for step in ({"setWeight": each}, {"pause": {"duration": pause}})]
        plan = planned(steps=steps, **fields)
        return [plan_digest(plan, stage) for stage in range(len(plan.stages))]

    before = digests(5, 50, 100)
    assert len({*before}) == 3
    later = digests(5, 60, 100, analysis={}, promote="manual")
    assert (later[0], later[1] == before[1]) == (before[0], False)
    assert digests(6, 50, 100)[0] != before[0]
    assert digests(5, 50, 100, pause="11m")[0] != before[0]


def test_the_schema_of_editors_takes_what_is_read() -> None:
    validator = Draft7Validator(document_schema())
    head: dict[str, Any] = {"apiVersion": "canary-mw/v1", "kind": "GrayRelease", "name": "r", "gray": ["gray"]}
    good: dict[str, Any] = {"steps": AUTO, "analysis": {"alpha": 1, "timeout": 60}, "bake": {"holdback": "5%"}}
    assert not [*validator.iter_errors(head | good)]
    refused: list[dict[str, Any]] = [
        {"steps": "now"},
        {"steps": [{"setWieght": 5}]},
        {"analysis": {"margn": 1}},
        {"steps": [{"setWeight": 101}]},
    ]
    refused += [{"hooks": [{"type": "x", "url": "http://g"}]}, {"bake": {"holdback": []}}]
    for fields in refused:
        assert [*validator.iter_errors(head | fields)], fields


def test_an_edit_of_the_plan_alone_is_another_release() -> None:
    def of(**fields: Any) -> GrayRelease:
        return read_rules(MAPPINGS + release(**fields)).releases.in_force[0]

    assert of(steps=AUTO) == of(steps=AUTO)
    assert of(steps=AUTO) != of(steps=AUTO, analysis={})
    assert of(steps="auto") != of(steps=AUTO)


def test_other_requests_or_another_revision_are_another_subject_and_another_plan_is_not() -> None:
    def subject(mappings: str = MAPPINGS, **fields: Any) -> str:
        (found,) = read_rules(mappings + release(**{"steps": AUTO, **fields})).releases.in_force
        return subject_of(found)

    elsewhere = document("svc", prefix="/other/") + document("gray", prefix="/other/", weight=0)
    same = document("svc", prefix="/svc/", timeout_ms=7000) + document("gray", prefix="/svc/", weight=0)
    assert subject(same) == subject() == subject(steps=[{"setWeight": 7}], promote="manual")
    assert len({subject(), subject(elsewhere), subject(revision="2"), subject(salt="other")}) == 4
