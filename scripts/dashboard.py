"""Write the dashboard of the component and of the chart with Grafana's own builders; `--check` reports an old one.

Run it after a metric has changed: python scripts/dashboard.py
"""

import itertools
import sys
from pathlib import Path
from typing import NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, SortOrder, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, VariableRefresh

K8S = Path(__file__).parent.parent / "k8s"
FILES = [K8S / folder / "dashboard.json" for folder in ("components/monitoring", "chart/files")]

_WIDTH, _HEIGHT = 12, 8
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_PODS = 'namespace=~"$namespace"'
_OF_RELEASE = f'{_PODS},release=~"$release",release!=""'


class Query(NamedTuple):
    """An expression, and what its series are called."""

    expr: str
    legend: str


class Graph(NamedTuple):
    """One panel of time series; `text` is what to look for in it."""

    title: str
    unit: str
    text: str
    queries: tuple[Query, ...]


def _share(counted: str, of: str, by: str) -> str:
    return f"sum by ({by}) (rate({counted}[$__rate_interval])) / on ({by}) sum by ({by}) (rate({of}[$__rate_interval]))"


def _rate(counter: str, selector: str, by: str) -> str:
    return f"sum by ({by}) (rate({counter}{{{selector}}}[$__rate_interval]))"


_VARIANT = "release, variant"
_REQUESTS = f"canary_mw_requests_total{{{_OF_RELEASE}}}"
_BUCKETS = f"canary_mw_request_duration_seconds_bucket{{{_OF_RELEASE}}}"
_NAMED = "{{release}} {{variant}}"

ROWS: dict[str, tuple[Graph, ...]] = {
    "Releases: gray beside stable": (
        Graph(
            "Requests by variant",
            "reqps",
            "The share of gray follows the rules. A variant without requests cannot be judged.",
            (Query(_rate("canary_mw_requests_total", _OF_RELEASE, _VARIANT), _NAMED),),
        ),
        Graph(
            "Errors by variant",
            "percentunit",
            "Answers with 5xx. Gray above stable: take it back, then look why.",
            (Query(_share(_REQUESTS.replace("}", ',status_class="5xx"}'), _REQUESTS, _VARIANT), _NAMED),),
        ),
        Graph(
            "p95 by variant",
            "s",
            "95 % of the answers are faster. Compare a variant with stable, not with yesterday.",
            (
                Query(
                    f"histogram_quantile(0.95, sum by ({_VARIANT}, le) (rate({_BUCKETS}[$__rate_interval])))",
                    _NAMED,
                ),
            ),
        ),
        Graph(
            "Weights",
            "percentunit",
            "What the rules say. Compare it with the requests that each variant gets.",
            (Query(f"max by ({_VARIANT}) (canary_mw_weight_ratio{{{_OF_RELEASE}}})", _NAMED),),
        ),
        Graph(
            "Evidence against gray",
            "none",
            "As ln E, of each pod by itself. Above 4.6 the verdict is that gray is worse.",
            (
                Query(
                    f"max by (release, metric) (canary_mw_release_evidence_log{{{_OF_RELEASE}}})",
                    "{{release}} {{metric}}",
                ),
            ),
        ),
        Graph(
            "Steps of releases",
            "short",
            "Which weight is in force, from 1; 0 before the first one, and when everybody is on stable again.",
            (Query(f"max by (release) (canary_mw_release_step{{{_OF_RELEASE}}})", "{{release}}"),),
        ),
        Graph(
            "Possible excess of gray",
            "percentunit",
            "How much more often gray fails at most, in this step. The next step waits until it is small enough.",
            (
                Query(
                    f"max by (release, metric) (canary_mw_release_excess_upper{{{_OF_RELEASE}}})",
                    "{{release}} {{metric}}",
                ),
            ),
        ),
        Graph(
            "Stable answers for gray",
            "reqps",
            "What the safety net does. `ok` is hidden from users; `denied` is an error that a user has seen.",
            (
                Query(
                    _rate("canary_mw_fallbacks_total", _OF_RELEASE, "release, variant, result"),
                    f"{_NAMED} {{{{result}}}}",
                ),
            ),
        ),
        Graph(
            "Failures of gray by kind",
            "reqps",
            "Whoever answered then.",
            (
                Query(
                    _rate("canary_mw_gray_failures_total", _OF_RELEASE, "release, variant, kind"),
                    f"{_NAMED} {{{{kind}}}}",
                ),
            ),
        ),
        Graph(
            "Why requests are where they are",
            "reqps",
            "`sticky` by the key of a user, `roll` by chance, `choice` by wish. Many `roll` where `sticky` is meant:"
            " the key is missing in requests.",
            (Query(_rate("canary_mw_assignments_total", _OF_RELEASE, "release, reason"), "{{release}} {{reason}}"),),
        ),
    ),
    "Rules": (
        Graph(
            "Rules in force",
            "none",
            "One number for each pod. It grows with each change.",
            (Query(f"canary_mw_rules_generation{{{_PODS}}}", "{{pod}}"),),
        ),
        Graph(
            "Rules that are not in force",
            "none",
            "1 while the newest rules of a pod, or a part of them, are in error; and workers that do not have them.",
            (
                Query(f"1 - canary_mw_rules_clean{{{_PODS}}}", "in error {{pod}}"),
                Query(f"canary_mw_workers{{{_PODS}}} - canary_mw_workers_current{{{_PODS}}}", "workers behind {{pod}}"),
            ),
        ),
        Graph(
            "Last contact with the API of the cluster",
            "s",
            "Below 300 while watches run. Rules from files have none.",
            (Query(f"max by (pod, kind) (canary_mw_source_last_contact_seconds{{{_PODS}}})", "{{pod}} {{kind}}"),),
        ),
        Graph(
            "Reloads",
            "short",
            "In 5 minutes, by whether the rules are wholly in force.",
            (Query(f"sum by (result) (increase(canary_mw_reloads_total{{{_PODS}}}[5m]))", "{{result}}"),),
        ),
    ),
    "Services": (
        Graph(
            "Attempts that fail",
            "reqps",
            "By service and reason. A service that is not there at all is named in the log.",
            (Query(_rate("canary_mw_upstream_errors_total", _PODS, "service, reason"), "{{service}} {{reason}}"),),
        ),
        Graph(
            "Endpoints that are left alone",
            "short",
            "Ejections by outlier_detection in 15 minutes.",
            (Query(f"sum by (service) (increase(canary_mw_ejections_total{{{_PODS}}}[15m]))", "{{service}}"),),
        ),
    ),
    "The proxy": (
        Graph(
            "Requests that are being answered",
            "short",
            "Growing without end: an upstream is slow, or a client reads slowly.",
            (Query(f"canary_mw_in_flight_requests{{{_PODS}}}", "{{pod}}"),),
        ),
        Graph(
            "Refused",
            "reqps",
            "Malformed, too large, too slow or not allowed.",
            (Query(_rate("canary_mw_refused_requests_total", _PODS, "status"), "{{status}}"),),
        ),
    ),
}


def build() -> str:
    """The dashboard as JSON."""
    made = (
        dashboard.Dashboard("canary-mw")
        .uid("canary-mw")
        .tags(["canary-mw"])
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_variable("namespace", "label_values(canary_mw_rules_generation, namespace)"))
        .with_variable(_variable("release", 'label_values(canary_mw_requests_total{namespace=~"$namespace"}, release)'))
    )
    number = itertools.count(1)
    for title, graphs in ROWS.items():
        made = made.with_row(dashboard.Row(title).id(next(number)))
        for graph in graphs:
            made = made.with_panel(_panel(graph).id(next(number)))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _variable(name: str, query: str) -> dashboard.QueryVariable:
    variable = dashboard.QueryVariable(name).query(query).datasource(_SOURCE)
    return variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).multi(True).include_all(True).all_value(".*")


def _panel(graph: Graph) -> timeseries.Panel:
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    tooltip = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
    panel = timeseries.Panel().title(graph.title).description(graph.text).unit(graph.unit).min(0).datasource(_SOURCE)
    panel = panel.legend(legend.show_legend(True)).tooltip(tooltip).span(_WIDTH).height(_HEIGHT)
    for name, query in zip("AB", graph.queries, strict=False):
        panel = panel.with_target(prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(name))
    return panel


def main() -> int:
    """Write the files, or compare them."""
    text = build()
    if "--check" in sys.argv[1:]:
        old = [file for file in FILES if not file.exists() or file.read_text(encoding="utf-8") != text]
        for file in old:
            print(f"{file} is out of date: run python scripts/dashboard.py", file=sys.stderr)
        return 1 if old else 0
    for file in FILES:
        file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
