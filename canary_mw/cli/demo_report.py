"""What the demo prints: the table of expected and measured percentages, URLs and hints."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from canary_mw.cli.demo_requests import PATH, Batch, Result
from canary_mw.http.messages import RequestHead
from canary_mw.inspection.explanation import explain
from canary_mw.routing.table import RouteTable

_HEADINGS = ("rule", "variant", "requests", "expected", "seen", "p50", "p99")
_COLOURS = {"stable": "green", "gray": "magenta"}


def table_rows(batch: Batch, results: list[Result], table: RouteTable) -> Iterator[tuple[str, ...]]:
    """Yield a row for each service that the rules give a share to: the expected percentage and the measured one."""
    candidates = explain(table, RequestHead("GET", PATH, batch.headers)).candidates
    for candidate in sorted(candidates, key=lambda c: -c.percent):
        if candidate.decision is None:
            continue
        service = candidate.decision.mapping.service.text
        seconds = sorted(result.seconds for result in results if result.service == service)
        seen = 100.0 * len(seconds) / len(results)
        yield (
            batch.rule,
            candidate.decision.variant,
            f"{len(seconds):,}",
            f"{candidate.percent:.1f} %",
            f"{seen:.1f} %",
            _milliseconds(seconds, 50),
            _milliseconds(seconds, 99),
        )


def _milliseconds(ordered: list[float], percent: int) -> str:
    """The percentile of sorted seconds: the smallest value that `percent` of them do not exceed."""
    if not ordered:
        return "-"
    return f"{1000 * ordered[math.ceil(len(ordered) * percent / 100) - 1]:.2f} ms"


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Print the rows under the headings: texts aligned to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]

    def line(cells: tuple[str, ...]) -> list[str]:
        return [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]

    click.echo()
    click.secho("  ".join(line(_HEADINGS)), bold=True)
    for row in rows:
        rule, variant, *rest = line(row)
        click.echo("  ".join((rule, click.style(variant, fg=_COLOURS[row[1]]), *rest)))


def print_urls(url: str, upstreams: dict[str, str]) -> None:
    """Print the URL of the proxy and those of the upstreams."""
    click.echo(f"The proxy listens on {click.style(url, bold=True)} before")
    width = max(map(len, upstreams))
    for service, upstream in upstreams.items():
        click.echo(f"  {service.ljust(width)}  {upstream}/")
    click.echo()


def print_page(page: str, fault: float, seconds: float) -> None:
    """Print where the page is, and when gray begins to fail."""
    click.echo()
    click.echo(f"Look at it: {click.style(page, bold=True)}")
    if fault:
        click.echo(f"In {seconds:g} seconds gray begins to fail {fault:g} % of its requests.")


def print_rollback(release: dict[str, Any]) -> None:
    """Print what has happened to the release, why, and what to do about it."""
    rollout = release["rollout"]
    click.echo()
    click.secho(f"Rolled back in attempt {rollout['attempt']}: everybody is on stable.", bold=True)
    click.echo(str(rollout["reason"]))
    click.echo(f"What to do: {release['verdict']['what_to_do']}")


def print_hints(url: str, rules: Path, command: str) -> None:
    """Print what the user can try while the demo is serving."""
    click.echo()
    click.secho("Try it in another terminal:", bold=True)
    click.echo(f"  curl {url}")
    click.echo(f"  curl -H 'gray: true' {url}")
    click.echo(f"  for i in $(seq 10); do curl -s {url}; done")
    click.echo(f"  {command}")
    click.echo()
    click.echo(
        f"Edit {click.style(str(rules), bold=True)}: a change is live within a second, another revision begins anew."
    )
    click.echo("Serving until Ctrl-C.")
