"""`canary-mw explain`."""

import json
import os
import sys
from typing import Any

import click
from click.core import ParameterSource

from canary_mw.cli.rules import STDIN, ambassador_id_option, load_documents, load_rules, rule_paths, standard_input
from canary_mw.config.variables import VARIABLE_CODES
from canary_mw.exceptions import ClientError
from canary_mw.forwarding.messages import Reply, UpstreamRequest
from canary_mw.http.messages import RequestHead
from canary_mw.inspection.batch import answer_line
from canary_mw.inspection.explanation import Explanation, explain
from canary_mw.inspection.explanation_json import attributes_of, explanation_json
from canary_mw.inspection.lint import lint_variables
from canary_mw.inspection.lint_documents import lint_documents
from canary_mw.routing.table import RouteTable
from canary_mw.rules.mapping import Mapping
from canary_mw.server.settings import variable

_USAGE = f"PATH, METHOD and TARGET are needed, or METHOD and TARGET with {variable('rules')} (or --batch)"


@click.command(name="explain")
@click.argument("arguments", nargs=-1, type=click.Path(), metavar="[PATH]... METHOD TARGET")
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header of the request.")
@click.option("--host", default="localhost", show_default=True, help="Host of the request.")
@click.option(
    "--local",
    multiple=True,
    metavar="NAME",
    help="Name of the service that the app is: explain as the middleware routes.",
)
@ambassador_id_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--batch", is_flag=True, help="Read JSON lines from stdin, write one JSON line for each.")
@click.pass_context
def explain_command(
    context: click.Context,
    arguments: tuple[str, ...],
    headers: tuple[str, ...],
    host: str,
    local: tuple[str, ...],
    ambassador_id: str,
    as_json: bool,
    batch: bool,
) -> None:
    """Explain what happens to a request METHOD TARGET under the rules in PATH, using the code that routes.

    PATH is a file, a directory, or - for standard input; without PATH the rules are those of CANARY_MW_RULES.

    \b
    With --batch each line of standard input is a JSON object:
      rules     the text of the rules; without it, those in PATH
      mode      "standalone" (default) or "middleware"
      local     name of the local service
      requests  objects: method, path, and optionally host, headers, client

    Each answer is a line with "diagnostics" and "results", one for each request. A line that cannot be read is answered
    with "line", its number, and "error"; the exit code is 1 then.
    """
    if batch:
        _check_batch_options(context)
        sys.exit(_batch(rule_paths(arguments), ambassador_id))
    *given, method, target = arguments if len(arguments) > 1 else (None, None)
    paths = rule_paths(each for each in given if each)
    if method is None or target is None or not paths:
        raise click.UsageError(_USAGE)
    table = _table(paths, local, ambassador_id)
    try:
        head = RequestHead(method, target, [("host", host), *map(_header, headers)])
    except ClientError as exc:
        raise click.UsageError(f"{target}: {exc}; such a request is answered {exc.status_hint}") from None
    explanation = explain(table, head)
    if as_json:
        click.echo(json.dumps(explanation_json(table, explanation), indent=2))
    else:
        _print_explanation(explanation)


def _check_batch_options(context: click.Context) -> None:
    for name, flag in (("headers", "-H"), ("host", "--host"), ("local", "--local"), ("as_json", "--json")):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"{flag} has no effect with --batch: each line says it by itself")


def _batch(paths: tuple[str, ...], ambassador_id: str) -> int:
    """Answer the lines of standard input; returns the exit code."""
    if STDIN in paths:
        raise click.UsageError("with --batch standard input holds the requests: name a file of rules")
    documents = load_documents(paths)
    failed = False
    for number, line in enumerate(standard_input(), 1):
        if line.strip():
            answer = answer_line(number, line, os.environ, documents, ambassador_id)
            failed |= "error" in answer
            print(json.dumps(answer), flush=True)
    return int(failed)


def _table(paths: tuple[str, ...], local: tuple[str, ...], ambassador_id: str) -> RouteTable:
    rules = load_rules(paths, ambassador_id, middleware=bool(local))
    if all(file.document.error for file in rules.files.values()):
        raise click.ClickException("\n".join(map(str, rules.diagnostics)))
    settings = rules.shared.settings
    table = RouteTable.build(
        rules.mappings, local=local, middleware=bool(local), settings=settings, releases=rules.releases
    )
    for diagnostic in (
        *rules.diagnostics,
        *table.diagnostics,
        *lint_documents(rules),
        *lint_variables(rules, os.environ),
    ):
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
    if request.timeout is not None and request.timeout_ends_at_head:
        timeout += " to the response head"
    return [f"{request.method} {request.target.decode('latin-1')}  host: {host}  timeout: {timeout}"]
