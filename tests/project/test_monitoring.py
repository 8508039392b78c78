"""The kit for Prometheus and Grafana: alerts, runbooks, the dashboard, and what is scraped."""

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cluster_box import Box, box
from clusters import in_loop
from installation import ROOT
from load import load
from servers import fetch_admin, free_port
from upstream import Peer, serving

KIT = ROOT / "k8s" / "components" / "monitoring"
RULES = yaml.safe_load((KIT / "prometheusrule.yaml").read_text(encoding="utf-8"))["spec"]
DASHBOARD = json.loads((KIT / "dashboard.json").read_text(encoding="utf-8"))
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
METRIC = re.compile(r"(?<!:)\bcanary_mw_\w+")


def metrics() -> set[str]:
    """The metrics that alerts and panels ask for."""
    asked = [*QUERIES, *(rule["expr"] for group in RULES["groups"] for rule in group["rules"])]
    asked += [each["query"] for each in DASHBOARD["templating"]["list"]]
    return {re.sub("_bucket$", "", name) for text in asked for name in METRIC.findall(text)}


def tool(name: str) -> str:
    """A program of Debian's package prometheus."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not there: the package prometheus has it")
    return found


def promtool(*arguments: str, cwd: Path) -> None:
    command = [tool("promtool"), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr


def write_rules(folder: Path, **more: Any) -> None:
    """The file of rules that Prometheus reads; `more` is put into each alert."""
    groups = [
        {**group, "rules": [{**rule, **more} if "alert" in rule else rule for rule in group["rules"]]}
        for group in RULES["groups"]
    ]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    page = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
    sections = {text.partition("\n")[0]: text for text in page.split("\n## ")[1:]}
    assert sections.keys() == {alert["alert"] for alert in ALERTS}
    for alert in ALERTS:
        assert alert["annotations"]["runbook"] == f"docs/runbooks.md#{alert['alert'].lower()}"
        assert alert["labels"]["severity"] in ("critical", "warning")
        for part in ("What it means", "Look at", "Do"):
            assert f"**{part}.**" in sections[alert["alert"]]


def test_the_chart_has_a_copy_of_the_alerts() -> None:
    copy = ROOT / "k8s" / "chart" / "files" / "prometheusrule.yaml"
    assert copy.read_bytes() == (KIT / "prometheusrule.yaml").read_bytes(), f"copy it to {copy}"


def test_each_alert_is_tried() -> None:
    cases = yaml.safe_load((Path(__file__).parent / "monitoring" / "alerts.yaml").read_text(encoding="utf-8"))
    given = [each for case in cases["tests"] for each in case.get("alert_rule_test", ())]
    tried = {each["alertname"] for each in given if "exp_alerts" in each}
    assert tried == {alert["alert"] for alert in ALERTS}


def test_what_is_scraped_is_a_port_of_the_pods() -> None:
    monitor = yaml.safe_load((KIT / "podmonitor.yaml").read_text(encoding="utf-8"))["spec"]
    deployment = yaml.safe_load((ROOT / "k8s" / "base" / "deployment.yaml").read_text(encoding="utf-8"))["spec"]
    assert monitor["selector"]["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()
    ports = [port["name"] for port in deployment["template"]["spec"]["containers"][0]["ports"]]
    assert {each["port"] for each in monitor["podMetricsEndpoints"]} <= set(ports)


def test_the_dashboard_is_that_of_the_script() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "dashboard.py"), "--check"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert (outcome.returncode, outcome.stderr) == (0, "")


@pytest.mark.slow
def test_promtool_takes_the_rules_and_each_alert_fires_where_it_should(tmp_path: Path) -> None:
    write_rules(tmp_path)
    promtool("check", "rules", "rules.yaml", cwd=tmp_path)
    shutil.copy(Path(__file__).parent / "monitoring" / "alerts.yaml", tmp_path)
    promtool("test", "rules", "alerts.yaml", cwd=tmp_path)


@pytest.mark.slow
def test_promtool_takes_each_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:canary_mw:{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate(QUERIES)
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", "rules.yaml", cwd=tmp_path)


class Failing:
    """Fails with one answer of 33, once it is told to."""

    def __init__(self) -> None:
        self.asked, self.fails = 0, False

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.request()
            self.asked += 1
            await peer.answer(b"gray", status=b"503 Gray" if self.fails and self.asked % 33 == 0 else b"200 OK")


class Prometheus:
    """A Prometheus that scrapes one target twice a second."""

    def __init__(self, port: int) -> None:
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False)

    async def get(self, path: str, **query: str) -> Any:
        """The data of an answer; None before there is one."""
        try:
            answer = await self._client.get(path, params=query)
        except httpx.TransportError:
            return None
        return answer.json().get("data") if answer.status_code == 200 else None

    async def value(self, query: str) -> float:
        """The largest value of a query now, 0 without one."""
        found = await self.get("/query", query=query)
        return max((float(each["value"][1]) for each in found["result"]), default=0.0) if found else 0.0

    async def firing(self, name: str = "") -> list[dict[str, str]]:
        """The labels of the alerts that fire, of those whose name begins so."""
        found = await self.get("/alerts")
        labels = [each["labels"] for each in found["alerts"] if each["state"] == "firing"] if found else []
        return [each for each in labels if re.match(name, each["alertname"])]

    async def aclose(self) -> None:
        await self._client.aclose()


@contextlib.asynccontextmanager
async def prometheus(folder: Path, target: int) -> AsyncIterator[Prometheus]:
    port = free_port()
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "canary", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with _running(folder, port):
        made = Prometheus(port)
        try:
            yield made
        finally:
            await made.aclose()


@contextlib.contextmanager
def _running(folder: Path, port: int) -> Iterator[None]:
    options = [f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={folder}", "--log.level=warn"]
    command = [tool("prometheus"), f"--config.file={folder / 'prometheus.yaml'}", *options]
    with (folder / "prometheus.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as child:
        try:
            yield
        finally:
            child.terminate()


@pytest.mark.slow
@in_loop
async def test_prometheus_tells_of_a_gray_version_that_fails(tmp_path: Path) -> None:
    """With the windows of the kit; only the time that an alert has to last is left out."""
    data = tmp_path / "data"
    data.mkdir()
    write_rules(data, **{"for": "0s"})
    tool("prometheus")
    failing = Failing()
    async with box(tmp_path) as shop, shop.api_served(), serving(failing) as gray:
        shop.ports = shop.ports[0], gray.origin.port
        shop.weigh(50)
        with shop.serve("log"):
            await shop.ready()
            async with prometheus(data, shop.admin) as watch, load(shop.port, "/shop/", clients=4, pause=0.005):
                while await watch.value("min(release_variant:canary_mw_requests:increase5m)") < 200:  # noqa: ASYNC110 - it is asked
                    await asyncio.sleep(0.2)
                assert await watch.firing() == []
                failing.fails = True
                while not (found := await watch.firing("CanaryGrayErrors")):  # noqa: ASYNC110 - it is asked
                    await asyncio.sleep(0.2)
                assert [each["variant"] for each in found] == ["gray"]
                # The verdict of the proxy itself may come as soon, and nothing else does.
                assert await watch.firing("(?!CanaryGrayErrors|CanaryVerdict)") == []
                await _has_all_metrics(shop)
            shop.api.drop_watches(hard=True)


async def _has_all_metrics(shop: Box) -> None:
    """What alerts and panels ask for is what a proxy with rules of a cluster tells."""
    text = (await fetch_admin(shop.admin, "/metrics")).body.decode()
    told = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    assert metrics() - told == set()
