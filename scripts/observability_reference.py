"""Write the tables of metrics and of the fields of the access log in docs/observability.md anew, from the code.

.venv/bin/python scripts/observability_reference.py
"""

from pathlib import Path

from prometheus_client.core import Metric

from canary_mw.observability.attempts.driven import NOTHING
from canary_mw.observability.attempts.rollout_metrics import rollout_families
from canary_mw.observability.figures.values import Figures
from canary_mw.observability.logs.lines import FIELDS
from canary_mw.observability.metric_families import families
from canary_mw.observability.source_metrics import rule_metrics, source_metrics
from canary_mw.observability.source_status import DELAY_BOUNDS, SourceStatus
from canary_mw.routing.table import RouteTable

_RULES = rule_metrics(RouteTable.build(()), None, ())
PAGE = Path(__file__).parent.parent / "docs" / "observability.md"
# One of each kind that is told.
_SOURCE = SourceStatus(
    source="k8s://",
    kind="services",
    namespace="*",
    synced=True,
    version="v1",
    objects=0,
    last_contact=0.0,
    cache_age=0.0,
    relists={"expired": 1},
    errors={"403": 1},
    error=None,
    delays=(0,) * (len(DELAY_BOUNDS) + 1),
)


def metrics_table() -> str:
    """All metrics: what is counted, and what is told of sources that are watched."""
    every = (*families(Figures()), *rollout_families(NOTHING, {}), _RULES, *source_metrics([_SOURCE]))
    rows = "".join(map(_row, every))
    return f"| metric | kind | labels | what it says |\n|---|---|---|---|\n{rows}"


def _row(family: Metric) -> str:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    labels = ", ".join(f"`{each}`" for each in getattr(family, "_labelnames", ()))
    return f"| `{name}` | {family.type} | {labels} | {family.documentation} |\n"


def fields_table() -> str:
    """The fields of a JSON line."""
    rows = "".join(f"| `{name}` | {text} |\n" for name, text in FIELDS.items())
    return f"| field | what it says |\n|---|---|\n{rows}"


def with_tables(page: str) -> str:
    """The page with the tables of today between their marks."""
    for name, table in (("metrics", metrics_table()), ("log fields", fields_table())):
        before, begin, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->\n")
        page = f"{before}{begin}{table}{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
