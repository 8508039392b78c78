"""`canary-mw explain`."""

import json
import os
import sys
from typing import Any

import click

from canary_mw.cli.check import EXISTING_PATH, load_rules
from canary_mw.config.variables import VARIABLE_CODES
from canary_mw.exceptions import ClientError
from canary_mw.forwarding.messages import Reply, UpstreamRequest
from canary_mw.http.messages import RequestHead
from canary_mw.inspection.explanation import Explanation, explain
from canary_mw.inspection.explanation_json import attributes_of, explain_batch, explanation_json
from canary_mw.inspection.lint import lint_variables
from canary_mw.routing.table import RouteTable
from canary_mw.rules.mapping import Mapping


@click.command(name="explain")
@click.argument("path", required=False, type=EXISTING_PATH)
@click.argument("method", required=False)
@click.argument("target", required=False)
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header of the request.")
@click.option("--host", default="localhost", show_default=True, help="Host of the request.")
@click.option("--local", multiple=True, help="Name of the service that the app is: explain as the middleware routes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--batch", is_flag=True, help="Read JSON lines from stdin, write one JSON line for each.")
def explain_command(
    path: str | None,
    method: str | None,
    target: str | None,
    headers: tuple[str, ...],
    host: str,
    local: tuple[str, ...],
    as_json: bool,
    batch: bool,
) -> None:
    """Explain what happens to a request METHOD TARGET under the rules in PATH, using the code that routes."""
    if batch:
        _batch()
        return
    if path is None or method is None or target is None:
        raise click.UsageError("PATH, METHOD and TARGET are needed (or --batch)")
    table = _table(path, local)
    try:
        head = RequestHead(method, target, [("host", host), *map(_header, headers)])
    except ClientError as exc:
        raise click.UsageError(f"{target}: {exc}; such a request is answered {exc.status_hint}") from None
    explanation = explain(table, head)
    if as_json:
        click.echo(json.dumps(explanation_json(table, explanation), indent=2))
    else:
        _print_explanation(explanation)


def _batch() -> None:
    for line in sys.stdin:
        if line.strip():
            print(json.dumps(explain_batch(json.loads(line), dict(os.environ))), flush=True)


def _table(path: str, local: tuple[str, ...]) -> RouteTable:
    rules = load_rules([path], "default")
    if all(file.document.error for file in rules.files.values()):
        raise click.ClickException("\n".join(map(str, rules.diagnostics)))
    settings = rules.shared.settings
    table = RouteTable.build(rules.mappings, local=local, middleware=bool(local), settings=settings)
    for diagnostic in (*rules.diagnostics, *table.diagnostics, *lint_variables(rules, os.environ)):
        if diagnostic.severity == "error" or diagnostic.code in VARIABLE_CODES:
            click.echo(str(diagnostic), err=True)
    return table


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.UsageError(f"-H {text!r}: write 'name: value'")
    return name.strip(), value.strip()


def _print_explanation(explanation: Explanation) -> None:
    rows = [_row(candidate) for candidate in explanation.candidates]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for share, variant, name, outcome, *details in rows:
        colour = {"gray": "magenta", "stable": "green"}.get(variant)
        cells = (share.rjust(widths[0]), click.style(variant.ljust(widths[1]), fg=colour), name.ljust(widths[2]))
        click.echo("  ".join((*cells, outcome)))
        for line in details:
            click.echo(f"{'':{sum(widths[:2]) + 4}}{line}")
    if explanation.considered:
        click.echo("\ngroups, in the order of routing:")
    for item in explanation.considered:
        mark = click.style("+", fg="green") if item.matched else click.style("-", fg="red")
        click.echo(f"  {mark} {item.group}: {item.why}")


def _row(candidate: Any) -> list[str]:
    decision, outcome = candidate.decision, candidate.outcome
    share = f"{candidate.percent:g} %"
    name = decision.mapping.name if decision else "(no Mapping)"
    variant = decision.variant if decision else "-"
    if outcome is None:
        return [share, variant, name, "the wrapped app answers"]
    if isinstance(outcome, Reply):
        location = [f" {value.decode()}" for key, value in outcome.headers or () if key == b"location"]
        return [share, variant, name, f"answered {outcome.status}{''.join(location)}"]
    lines = [*_request_lines(outcome), *_attribute_lines(decision.mapping)]
    return [share, variant, name, f"-> {decision.mapping.service.text}", *lines]


def _attribute_lines(mapping: Mapping) -> list[str]:
    attributes = attributes_of(mapping)
    if not attributes:
        return []
    return ["kept: " + ", ".join(f"{name}: {json.dumps(value)}" for name, value in attributes.items())]


def _request_lines(request: UpstreamRequest) -> list[str]:
    host = request.headers[0][1].decode("latin-1")
    timeout = "none" if request.timeout is None else f"{request.timeout:g} s"
    return [f"{request.method} {request.target.decode('latin-1')}  host: {host}  timeout: {timeout}"]
