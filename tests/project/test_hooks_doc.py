"""docs/hooks.md says what is sent, and when."""

import json
import re
from pathlib import Path

from planned_releases import planned
from servers import mapping

from canary_mw.control.rollouts.hooks.deliveries import PAUSES
from canary_mw.control.rollouts.hooks.hooks import INTERVAL
from canary_mw.control.rollouts.hooks.payload import event, question
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.rollout.findings import ERROR_RATE, MetricEvidence, find
from canary_mw.rollout.outcome import Message
from canary_mw.rollout.state import ReleaseState
from canary_mw.rollout.statistics import Epoch
from canary_mw.rollout.verdict import Look
from canary_mw.rules.plan import HOOK_TYPES, Hook

PAGE = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text(encoding="utf-8")
EXAMPLE = json.loads(PAGE.partition("```json\n")[2].partition("```")[0])


def test_the_hooks_of_the_page_are_read() -> None:
    written = PAGE.partition("```yaml\n")[2].partition("```")[0]
    steps = "steps:\n- setWeight: 5\n- setWeight: 100\n"
    store = RuleStore(
        StaticSource(
            mapping("svc", "/", "svc")
            + mapping("gray", "/", "gray", weight=0)
            + "---\napiVersion: canary-mw/v1\nkind: GrayRelease\nname: shop\nstable: svc\ngray: [gray]\n"
            + f"sticky: {{header: x}}\n{steps}{written}"
        )
    )
    store.reload()
    (document,) = store.table.documents.in_force
    assert document.plan is not None
    assert [each.type for each in document.plan.hooks] == ["confirm-promotion", "rollback", "event"]
    assert document.plan.hooks[2].metadata == (("team", "shop"),)
    assert {each.timeout for each in document.plan.hooks} == {5.0, 10.0}


def test_every_kind_is_listed() -> None:
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", PAGE, re.M)) == sorted(HOOK_TYPES)


def test_the_example_has_the_fields_that_are_sent() -> None:
    hook = Hook("event", "http://chat/", metadata=(("team", "shop"),))
    message = Message("transition", "text", "shop", 1, "Progressing", "RolledBack", 0, {"gray": 0.0}, "worse")
    bad = MetricEvidence(ERROR_RATE, [[Epoch(0.05, 20, 2, 500, 9000)]])
    look = Look(findings={"gray": find([bad])})
    sent = json.loads(event(hook, planned(hook), ReleaseState(name="shop"), message, 1.0, look))
    assert set(sent) == set(EXAMPLE)
    assert set(sent["metadata"]) == set(EXAMPLE["metadata"])
    assert list(sent["metrics"][0]) == list(EXAMPLE["metrics"][0])
    assert set(json.loads(question(hook, planned(hook), ReleaseState(name="shop")))) == set(EXAMPLE)


def test_the_times_are_those_of_the_code() -> None:
    assert f"each {INTERVAL:g} seconds" in PAGE
    assert "after {:g}, {:g} and {:g} seconds".format(*PAUSES) in PAGE
