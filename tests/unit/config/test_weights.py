"""What a mistake in a weight does: to its Mapping, to its group, at the first load and on a live edit."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rules import chosen, document, findings, get, read_rules

from canary_mw.config.document import Document, document_in_error
from canary_mw.config.parser import RuleSet, parse
from canary_mw.routing.table import RouteTable

Weights = Mapping[str, int | None]
Written = Mapping[str, int | str | None]


def group(weights: Written, **more: Any) -> str:
    """Mappings of one group, by name, with their weights."""
    return "".join(document(name, prefix="/svc/", weight=weight, **more) for name, weight in weights.items())


def shares(rules: RuleSet, *, middleware: bool = False) -> dict[str | None, int]:
    """Percents by name; None is what no Mapping takes: 404, or the wrapped app."""
    routes = RouteTable.build(rules.mappings, middleware=middleware)
    return dict(Counter(chosen(routes, get(), roll + 0.5) for roll in range(100)))


def edited(before: Written | str, *after: Written | str, **options: Any) -> RuleSet:
    """The rules after edits of one file."""
    texts = [text if isinstance(text, str) else group(text) for text in (before, *after)]
    rules = read_rules(texts[0], **options)
    for text in texts[1:]:
        rules = read_rules(text, previous=rules, **options)
    return rules


def errors(rules: RuleSet) -> list[str]:
    return [d.message for d in rules.diagnostics if d.severity == "error"]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"stable": None, "gray": 120}, {"stable": 100}),
        ({"stable": None, "gray": 1000, "beta": 20}, {"stable": 80, "beta": 20}),
        ({"stable": None, "gray": -5}, {"stable": 100}),
        ({"a": 101, "b": 60, "c": 40}, {"b": 60, "c": 40}),
        ({"a": 50, "b": 200, "c": 50}, {"a": 50, "c": 50}),
    ],
)
def test_at_first_load_a_weight_outside_0_to_100_counts_as_0_beside_others(
    weights: Weights, expected: dict[str | None, int]
) -> None:
    rules = edited(weights)
    assert shares(rules) == expected
    (wrong,) = [name for name, weight in weights.items() if weight is not None and not 0 <= weight <= 100]
    (error,) = [d for d in rules.diagnostics if d.severity == "error"]
    assert (error.code, error.mapping) == ("weight-range", wrong)
    assert f"weight {weights[wrong]} is " in error.message
    assert "it counts as 0 beside the other Mappings of its group" in error.message


@pytest.mark.parametrize("weight", [101, -1, 5000])
def test_alone_in_its_group_a_mapping_takes_all_whatever_its_weight(weight: int) -> None:
    rules = edited({"only": weight})
    assert shares(rules) == {"only": 100}
    assert findings(rules.diagnostics) == [("warning", "weight-range", 7)]
    assert "takes all requests" in rules.diagnostics[0].message


@pytest.mark.parametrize("weight", [101, -1])
def test_in_a_middleware_it_takes_none_and_that_is_an_error(weight: int) -> None:
    rules = edited({"gray": weight}, middleware=True)
    assert shares(rules, middleware=True) == {None: 100}
    assert findings(rules.diagnostics) == [("error", "weight-range", 7)]
    assert "the wrapped app takes all requests" in rules.diagnostics[0].message


def test_where_no_weight_counts_a_mapping_with_a_wrong_one_takes_all() -> None:
    """The others are switched off on purpose, and a mistake must not turn every request into a 404."""
    assert shares(edited({"stable": 1000, "gray": 0})) == {"stable": 100}
    assert shares(edited({"gray": 0, "stable": -100})) == {"stable": 100}
    assert shares(edited({"stable": 1000, "gray": 200})) == {"stable": 100}
    assert shares(edited({"a": 0, "b": 0})) == {None: 100}
    (found,) = RouteTable.build(edited({"stable": 1000, "gray": 0}).mappings).diagnostics
    assert "stable takes all requests" in found.message


@pytest.mark.parametrize("weight", [-1, 150])
def test_a_shadow_with_a_wrong_weight_is_left_out_or_keeps_its_last_good_version(weight: int) -> None:
    wrong = group({"a": None}) + document("copy", prefix="/svc/", weight=weight, shadow="true")
    assert [m.name for m in read_rules(wrong).mappings] == ["a"]
    assert findings(read_rules(wrong).diagnostics) == [("error", "bad-value", 13)]
    after = edited(wrong.replace(str(weight), "50"), wrong)
    assert [m.weight for m in after.mappings] == [None, 50]


def test_a_redirect_keeps_its_group_whatever_its_weight() -> None:
    rules = edited(group({"a": 150}, host_redirect="true"))
    assert shares(rules) == {"a": 100}
    assert errors(rules) == []


LIVE = {"stable": None, "gray": 20}
COMPLETE = {"stable": 80, "gray": 20}


@pytest.mark.parametrize("before", [LIVE, COMPLETE, {"stable": 60, "gray": 30, "beta": 10}, {"a": 20, "b": 30}])
@pytest.mark.parametrize("wrong", [101, 1000, -1, "'20'", "20.5", "null"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_wrong_weight_of_a_live_edit_moves_no_share(before: Weights, wrong: Any, which: int) -> None:
    name = [*before][which]
    first = edited(before)
    after = edited(before, {**before, name: wrong})
    assert shares(after) == shares(first)
    assert after.mappings == first.mappings
    assert len(errors(after)) == 1
    assert edited(before, {**before, name: wrong}, before).diagnostics == first.diagnostics


def test_a_live_edit_with_a_wrong_weight_keeps_the_whole_last_good_version() -> None:
    after = edited(LIVE, group({"stable": None}) + document("gray", prefix="/svc/", weight=200, service="new"))
    assert {m.name: m.service.text for m in after.mappings} == {"stable": "stable", "gray": "gray"}
    assert errors(after) == ["Mapping gray: weight 200 is over 100: the Mapping keeps its last good version"]


def test_a_version_that_was_never_good_does_not_hold_back_a_later_one() -> None:
    bad = {"stable": None, "gray": 200}
    newer = group({"stable": None}) + document("gray", prefix="/svc/", weight=300, service="new")
    assert [m.service.text for m in edited(bad, newer).mappings] == ["stable", "new"]
    broken = group({"stable": None}) + document("gray", prefix="/svc/", weight="x")
    assert [m.weight for m in edited(bad, broken).mappings] == [None, 200]
    assert shares(edited(bad, newer, {"stable": None, "gray": 30})) == {"stable": 70, "gray": 30}


def test_a_second_document_with_a_wrong_weight_does_not_displace_a_good_first_one() -> None:
    rules = edited(group({"a": 20}) + group({"a": 200}))
    assert [m.weight for m in rules.mappings] == [20]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"a": 60, "b": 60}, {"a": 60, "b": 40}),
        ({"a": 50, "b": 51}, {"a": 50, "b": 50}),
        ({"a": None, "b": 60, "c": 50}, {"b": 60, "c": 40}),
        ({"a": 100, "b": 1}, {"a": 100}),
    ],
)
def test_at_first_load_weights_over_100_are_capped_as_in_emissary(
    weights: Weights, expected: dict[str | None, int]
) -> None:
    rules = edited(weights)
    assert shares(rules) == expected
    (error,) = [d for d in rules.diagnostics if d.severity == "error"]
    last = [name for name, weight in weights.items() if weight is not None][-1]
    assert (error.code, error.mapping, error.file) == ("weights-over-100", last, "rules.yaml")
    assert f"add up to {sum(w or 0 for w in weights.values())}, more than 100" in error.message
    for name in weights:
        percent = expected.get(name)
        assert f"{name} gets {f'{percent} %' if percent else 'nothing'}" in error.message


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (LIVE, {"stable": None, "gray": 60, "beta": 60}),
        (LIVE, {"stable": 90, "gray": 20}),
        (LIVE, {"stable": 95, "gray": 95, "more": None}),
        (COMPLETE, {"stable": 80, "gray": 30}),
        (COMPLETE, {"gray": 30, "stable": 80}),
        (COMPLETE, {"stable": 80, "gray": 20, "beta": 1}),
        (COMPLETE, {"stable": 100, "gray": 100}),
        ({"stable": 60, "gray": 30, "beta": 10}, {"stable": 60, "gray": 30, "beta": 90}),
        ({"a": 60, "b": 60}, {"a": 60, "b": 90}),
        ({"a": 20, "b": 30}, {"a": 20, "b": 90}),
        ({"stable": None}, {"stable": None, "gray": 60, "beta": 60}),
        ({"stable": 50}, {"stable": 50, "gray": 60}),
    ],
)
def test_on_a_live_edit_weights_over_100_leave_the_group_its_shares(before: Weights, after: Weights) -> None:
    rules = edited(before, after)
    assert shares(rules) == shares(edited(before))
    (error,) = [d for d in rules.diagnostics if d.severity == "error"]
    assert error.code == "weights-over-100"
    assert "the group keeps the shares that it had" in error.message
    again = edited(before, after, group(after) + "# more\n")
    assert shares(again) == shares(rules)
    assert again.diagnostics == rules.diagnostics


def test_only_the_weights_of_such_a_group_wait_the_rest_of_the_edit_counts() -> None:
    rules = edited(COMPLETE, group({"stable": 80, "gray": 30}, timeout_ms=7) + document("other"))
    assert [(m.name, m.weight, m.timeout_ms) for m in rules.mappings] == [
        ("stable", 80, 7),
        ("gray", 20, 7),
        ("other", None, None),
    ]


def test_a_correction_counts_at_once() -> None:
    over = {"stable": 80, "gray": 30}
    assert shares(edited(COMPLETE, over, {"stable": 70, "gray": 30})) == {"stable": 70, "gray": 30}
    assert shares(edited(COMPLETE, over, {"stable": None, "gray": 30})) == {"stable": 70, "gray": 30}
    assert edited(COMPLETE, over, COMPLETE).diagnostics == ()


def test_a_group_of_another_prefix_host_or_condition_is_not_held_back() -> None:
    other = document("x", prefix="/svc/", hostname="a.com", version="v3alpha1", weight=10)
    other += document("y", prefix="/svc/", hostname="a.com", version="v3alpha1")
    rules = edited(
        group(COMPLETE) + other, group({"stable": 80, "gray": 30}) + other.replace("weight: 10", "weight: 90")
    )
    assert {m.name: m.weight for m in rules.mappings} == {"stable": 80, "gray": 20, "x": 90, "y": None}


def test_a_new_group_is_capped_also_in_a_live_edit() -> None:
    assert shares(edited(document("other"), {"a": 60, "b": 60})) == {"a": 60, "b": 40}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        # A removed gray Mapping: the stable one takes its share.
        ({"stable": 50, "gray": 30, "beta": 20}, {"stable": 80, "gray": 30}, {"stable": 70, "gray": 30}),
        ({"stable": None, "gray": 30, "beta": 20}, {"stable": None, "gray": 200}, {"stable": 70, "gray": 30}),
        ({"stable": 50, "gray": 30, "beta": 20}, {"stable": 50, "gray": 300}, {"stable": 70, "gray": 30}),
        # A removed stable Mapping with another in its place.
        ({"stable": 90, "gray": 10}, {"next": 90, "gray": 20}, {"next": 90, "gray": 10}),
        ({"stable": None, "gray": 10}, {"next": None, "gray": 60, "beta": 60}, {"next": 90, "gray": 10}),
        ({"stable": None, "other": None}, {"other": 0, "gray": -1}, {"other": 100}),
        # Nobody is left but the gray one.
        ({"stable": 90, "gray": 10}, {"gray": 200}, {"gray": 100}),
        ({"stable": 1, "gray": 0}, {"gray": 60, "beta": 60}, {"gray": 60, "beta": 40}),
    ],
)
def test_what_a_removed_mapping_had_goes_to_the_stable_one(
    before: Weights, after: Weights, expected: dict[str | None, int]
) -> None:
    assert shares(edited(before, after)) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (COMPLETE, {"stable": 80, "gray2": 90}, {"stable": 80, "gray2": 20}),
        (COMPLETE, {"stable2": 80, "gray2": 90}, {"stable2": 80, "gray2": 20}),
        (COMPLETE, {"stable2": 800, "gray": 20}, {"stable2": 80, "gray": 20}),
        (COMPLETE, {"gray": 60, "stable2": 800}, {"stable2": 80, "gray": 20}),
        (LIVE, {"stable": None, "gray2": 200}, {"stable": 80, "gray2": 20}),
        (LIVE, {"stable2": 90, "gray": 60}, {"stable2": 80, "gray": 20}),
    ],
)
def test_a_renamed_mapping_is_known_by_its_service(
    before: Weights, after: Weights, expected: dict[str | None, int]
) -> None:
    text = "".join(
        document(name, prefix="/svc/", weight=weight, service=name.rstrip("2")) for name, weight in after.items()
    )
    rules = edited(before, text)
    assert shares(rules) == expected
    assert len(errors(rules)) == 1


def test_a_mapping_with_a_wrong_weight_in_a_renamed_file_keeps_its_share() -> None:
    before = parse([Document(group(COMPLETE), "a.yaml")])
    after = parse([Document(group({"stable": 80, "gray": 200}), "b.yaml")], previous=before)
    assert shares(after) == {"stable": 80, "gray": 20}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        # A step of a release, with a mistake in one of its two weights.
        ({"stable": 75, "gray": 25}, {"stable": 50, "gray": 500}, {"stable": 75, "gray": 25}),
        ({"stable": 75, "gray": 25}, {"stable": 50, "gray": "5O"}, {"stable": 75, "gray": 25}),
        ({"stable": 75, "gray": 25}, {"stable": 500, "gray": 50}, {"stable": 75, "gray": 25}),
        ({"stable": None, "gray": 50}, {"stable": 0, "gray": 1000}, {"stable": 50, "gray": 50}),
        ({"stable": 80, "gray": 20}, {"stable": 0, "gray": 1000}, {"stable": 80, "gray": 20}),
        # A good edit beside the mistake counts, a rollback above all.
        (
            {"stable": None, "gray": 20, "beta": 10},
            {"stable": None, "gray": 0, "beta": 110},
            {"stable": 90, "beta": 10},
        ),
        ({"stable": 80, "gray": 20}, {"stable": 1000, "gray": 0}, {"stable": 100}),
        ({"stable": 70, "gray": 20, "beta": 10}, {"stable": 90, "gray": 0, "beta": "x"}, {"stable": 90, "beta": 10}),
        (
            {"stable": None, "gray": 20, "beta": 10},
            {"stable": None, "gray": 30, "beta": "x"},
            {"stable": 60, "gray": 30, "beta": 10},
        ),
    ],
)
def test_a_mistake_beside_a_good_edit_sends_no_more_requests_to_gray(
    before: Written, after: Written, expected: dict[str | None, int]
) -> None:
    assert shares(edited(before, after)) == expected


def test_a_weight_in_a_file_that_cannot_be_read_counts_as_one_in_error() -> None:
    stable, gray = (document(name, prefix="/svc/", weight=weight) for name, weight in (("stable", 75), ("gray", 25)))
    before = parse([Document(stable, "a.yaml"), Document(gray, "b.yaml")])
    for lost in (Document("---\n{" + gray, "b.yaml"), document_in_error("b.yaml", "cannot be read")):
        after = parse([Document(stable.replace("75", "50"), "a.yaml"), lost], previous=before)
        assert shares(after) == {"stable": 75, "gray": 25}


def test_what_a_middleware_does_not_send_to_gray_goes_to_the_app_also_after_a_mistake() -> None:
    before, after = {"gray": 20, "beta": 0}, {"gray": 0, "beta": 1000}
    assert shares(edited(before, after, middleware=True), middleware=True) == {None: 100}
    assert shares(edited(before, after)) == shares(edited(before)) == {"gray": 100}
    assert shares(edited({"gray": 20}, {"gray": 200}, middleware=True), middleware=True) == {"gray": 20, None: 80}
    over = edited({"gray": 20}, {"gray": 20, "beta": 90}, middleware=True)
    assert shares(over, middleware=True) == {"gray": 20, None: 80}


def test_a_label_says_who_is_stable() -> None:
    def labelled(weights: Written) -> str:
        return "".join(
            document(name, prefix="/svc/", weight=weight, metadata_labels=f"{{variant: {name}}}")
            for name, weight in weights.items()
        )

    before, after = {"stable": 20, "gray": 80}, {"stable": 10, "gray": 900}
    assert shares(edited(labelled(before), labelled(after))) == {"stable": 20, "gray": 80}


percents = st.one_of(st.none(), st.integers(0, 100))
names = st.lists(st.sampled_from("abcd"), min_size=2, max_size=4, unique=True)


@st.composite
def live_groups(draw: st.DrawFn) -> Weights:
    """A group in force without a mistake: its weights add up to 100 or less."""
    weights: dict[str, int | None] = {}
    for name in draw(names):
        left = 100 - sum(weight or 0 for weight in weights.values())
        weights[name] = draw(st.one_of(st.none(), st.integers(0, left)))
    return weights


@given(live_groups(), st.data())
def test_no_single_wrong_weight_moves_a_share(before: Weights, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*before]))
    others = sum(weight or 0 for other, weight in before.items() if other != name)
    wrong = data.draw(st.one_of(st.integers(max_value=-1), st.integers(min_value=101 - others)))
    assert shares(edited(before, {**before, name: wrong})) == shares(edited(before))


@given(live_groups(), st.data())
def test_an_edit_with_any_mistakes_sends_nobody_to_404(before: Weights, data: st.DataObject) -> None:
    after = {name: data.draw(st.one_of(percents, st.integers(-200, 1000))) for name in data.draw(names)}
    rules = edited(before, after)
    if errors(rules) and shares(edited(before)).keys() & after.keys():
        assert None not in shares(rules)
