"""docs/python.md: every block runs, and its tables name what there is."""

import re
import runpy
from collections.abc import Iterable
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from installation import ROOT
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

import canary_mw
from canary_mw import CanaryMiddleware, CanaryWSGIMiddleware, RuleStore
from canary_mw.observability.source_metrics import rule_metrics, source_metrics
from canary_mw.observability.source_status import SourceStatus
from canary_mw.routing.table import RouteTable

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
README = (ROOT / "README.md").read_text(encoding="utf-8")
RELEASE, PLAIN = re.findall(r"^```yaml\n(.*?)^```$", README, re.M | re.S)
# The stable Mapping of the first one, and the gray ones that need no release.
RULES = f"{RELEASE.partition('---')[0]}---\n{PLAIN}"

# Starlette wants another client for its test client, and works with httpx.
pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda text: re.sub(r"\W+", "-", text[-40:]))
def test_a_block_runs_as_shown(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rules.yaml").write_text(RELEASE if "shop-2026-11" in block else RULES)
    Path("app.py").write_text(block)
    for each in runpy.run_path("app.py").values():
        if isinstance(each, RuleStore):
            each.stop()
    if "openfeature" in block:
        from openfeature import api

        api.clear_providers()


def test_every_public_name_is_listed_and_no_other() -> None:
    table, _, _ = PAGE.partition("\n## ")
    rows = "".join(re.findall(r"^\|(.*?)\|", table, re.M))
    assert sorted(re.findall(r"`(\w+)`", rows)) == sorted({*canary_mw.__all__} - {"__version__"})


@pytest.mark.parametrize("middleware", [CanaryMiddleware, CanaryWSGIMiddleware])
def test_every_argument_is_listed_and_no_other(middleware: type) -> None:
    _, _, section = PAGE.partition("\n## Arguments\n")
    rows = "".join(re.findall(r"^\|(.*?)\|", section.partition("\n## ")[0], re.M))
    assert sorted(re.findall(r"`(\w+)`", rows)) == sorted({*signature(middleware).parameters} - {"app"})


def test_the_admin_pages_answer_where_they_are_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette.testclient import TestClient

    monkeypatch.chdir(tmp_path)
    Path("rules.yaml").write_text(RULES)
    (block,) = [text for text in BLOCKS if "create_admin" in text]
    Path("app.py").write_text(block)
    with TestClient(runpy.run_path("app.py")["app"]) as client:
        for page in re.findall(r"`/canary(/\w+)`", PAGE):
            assert client.get(f"/canary{page}").status_code == 200
        assert "canary_mw_requests_total{" in client.get("/canary/metrics").text


class Sources(Collector):
    """The metrics of one source that is watched, and of its rules."""

    def collect(self) -> Iterable[Metric]:
        known: dict[str, Any] = {"source": "k8s://", "kind": "services", "namespace": "*", "version": "v1"}
        counts: dict[str, Any] = {"objects": 1, "relists": {}, "errors": {}, "last_contact": 0.1, "cache_age": None}
        of_rules = rule_metrics(RouteTable.build(()), None, ())
        return [of_rules, *source_metrics([SourceStatus(**known, **counts, synced=True, error=None)])]


def test_every_metric_is_listed_and_no_other() -> None:
    _, _, section = PAGE.partition("\n| metric | labels | what it counts |\n")
    rows = "".join(re.findall(r"^\|(.*?)\|", section.partition("\n\n")[0], re.M))
    of_sources = CollectorRegistry()
    of_sources.register(Sources())
    text = canary_mw.Metrics().render() + generate_latest(of_sources)
    told = re.findall(r"^# TYPE (\w+)", text.decode(), re.M)
    assert sorted(re.findall(r"`(\w+)`", rows)) == sorted(told)
