"""Releases as flags of OpenFeature, asked by its own client."""

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason
from rules import document, get

from canary_mw import RouteTable, decide, propagate
from canary_mw.propagate.carried import Carried
from canary_mw.propagate.openfeature import CanaryProvider
from canary_mw.routing.releases.overridden import LatchedRelease
from canary_mw.routing.releases.override import LatchCell, Override

MAPPINGS = document("svc", prefix="/svc/") + document("gray", prefix="/svc/", weight=0)
RELEASE = """---
apiVersion: canary-mw/v1
kind: GrayRelease
name: r
stable: svc
sticky: [{header: k}]
"""


class Store:
    """Stands for a RuleStore."""

    def __init__(self, fields: str) -> None:
        self.table = RouteTable.from_yaml(MAPPINGS + RELEASE + fields)


@pytest.fixture(autouse=True)
def _no_provider() -> Iterator[None]:
    yield
    api.clear_providers()


def client(fields: str) -> tuple[OpenFeatureClient, RouteTable]:
    store = Store(fields)
    api.set_provider(CanaryProvider(store))
    return api.get_client(), store.table


def context(key: str | None, **attributes: Any) -> EvaluationContext:
    return EvaluationContext(key, attributes)


def test_a_user_gets_the_variant_of_a_request_with_the_same_key() -> None:
    flags, table = client("gray: {gray: 50}")
    for number in range(200):
        key = f"user-{number}"
        decision = decide(table, get("/svc/", {"k": key}), 1.0)
        assert decision is not None
        assert decision.release is not None
        found = flags.get_string_details("r", "default", context(key))
        assert (found.value, found.variant, found.reason) == (decision.variant, decision.variant, Reason.SPLIT)
        assert found.flag_metadata == {"reason": "sticky", "slot": decision.release.slot}
        assert flags.get_boolean_value("r", False, context(key)) is (decision.variant == "gray")


REASONS = [
    ("gray: {gray: 100}\nenabled: false", "stable", Reason.DISABLED),
    ("gray: {gray: {weight: 0, always: {ids: [me]}}}", "gray", Reason.TARGETING_MATCH),
    ("gray: {gray: 100}\nnever: {ids: [me]}", "stable", Reason.TARGETING_MATCH),
    ("gray: {gray: 100}\nholdout: {name: h, percent: 100}", "stable", Reason.DEFAULT),
    ("gray: {gray: 100}\naudience: {user: {plan: pro}}", "stable", Reason.DEFAULT),
    ("gray: {gray: 100}\naudience: {user: {plan: [free, pro]}}", "gray", Reason.SPLIT),
    ("gray: {gray: 100}\naudience: {not: {user: {plan: pro}}}", "gray", Reason.SPLIT),
    # What only a request can tell sends nobody to gray, also where it would by being missing.
    ("gray: {gray: 100}\naudience: {not: {header: {x-bot: 'true'}}}", "stable", Reason.DEFAULT),
    ("gray: {gray: 100}\naudience: {not: {predicate: beta}}", "stable", Reason.DEFAULT),
]


@pytest.mark.parametrize(("fields", "value", "reason"), REASONS)
def test_the_reason_is_the_step_that_decides(fields: str, value: str, reason: Reason) -> None:
    flags, _ = client(fields)
    found = flags.get_string_details("r", "default", context("me", plan="free"))
    assert (found.value, found.reason, found.error_code) == (value, reason, None)
    assert asyncio.run(flags.get_boolean_value_async("r", value == "stable", context("me", plan="free"))) is (
        value == "gray"
    )


def test_what_is_no_flag_is_the_default() -> None:
    flags, _ = client("gray: {gray: 100}")
    found = flags.get_string_details("else", "default", context("me"))
    assert (found.value, found.reason, found.error_code) == ("default", Reason.ERROR, ErrorCode.FLAG_NOT_FOUND)
    number = flags.get_integer_details("r", 7, context("me"))
    assert (number.value, number.error_code) == (7, ErrorCode.TYPE_MISMATCH)
    assert flags.get_float_value("r", 0.5, context("me")) == 0.5
    assert flags.get_object_value("r", {"a": 1}, context("me")) == {"a": 1}


def test_without_a_key_the_decision_about_the_request_counts() -> None:
    flags, table = client("gray: {gray: 100}\nchoice: {header: x-gray}")
    unknown = flags.get_string_details("r", "default")
    assert (unknown.value, unknown.reason, unknown.error_code) == ("default", Reason.DEFAULT, None)
    for headers, value, reason in (({}, "gray", Reason.SPLIT), ({"x-gray": "never"}, "stable", Reason.TARGETING_MATCH)):
        head = get("/svc/", {"k": "me", **headers})
        with Carried(head.headers, decide(table, head, 1.0), table):
            found = flags.get_string_details("r", "default", context(None))
            # A key that is given is a key.
            assert flags.get_string_value("r", "default", context("me")) == "gray"
        assert (found.value, found.reason) == (value, reason)


@pytest.mark.parametrize(
    ("fields", "lane", "value"),
    [
        ("gray: {gray: 0}", "r=gray", "gray"),
        ("gray: {gray: 0}\nlane: common", "r=stable, common=gray", "gray"),
        ("gray: {gray: 0}", "r=gone", "stable"),
        ("gray: {gray: 0}\nenabled: false", "r=gray", "stable"),
        ("gray: {gray: 0}", "other=gray", "default"),
    ],
)
def test_a_lane_counts_where_nothing_is_decided_here(fields: str, lane: str, value: str) -> None:
    flags, _ = client(fields)
    with propagate.lane(lane):
        assert flags.get_string_value("r", "default") == value


def test_a_release_that_is_taken_back_gives_gray_to_nobody_at_once() -> None:
    """Before the table is another one, as for requests."""
    cells = memoryview(bytearray(8)).cast("Q")
    document = RouteTable.from_yaml(MAPPINGS + RELEASE + "gray: {gray: 100}").releases["r"].document
    release = LatchedRelease(document, Override(weights={"gray": 100.0}, attempt=1), LatchCell(cells))
    store = Store("gray: {gray: 100}")
    store.table.releases = {"r": release}
    api.set_provider(CanaryProvider(store))
    flags = api.get_client()

    def values() -> list[str]:
        with propagate.lane("r=gray"):
            by_lane = flags.get_string_value("r", "default")
        return [flags.get_string_value("r", "default", context("me")), by_lane, release.variant_of("me")]

    assert values() == ["gray"] * 3
    cells[0] = 1
    assert values() == ["stable"] * 3
    assert flags.get_string_details("r", "default", context("me")).reason == Reason.DISABLED


def test_without_openfeature_its_name_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(vars(propagate), "CanaryProvider", raising=False)
    monkeypatch.delitem(sys.modules, "canary_mw.propagate.openfeature")
    monkeypatch.setitem(sys.modules, "openfeature.provider", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'canary-mw\[openfeature\]'"):
        _ = propagate.CanaryProvider
