"""`canary-mw check`, `explain` and `schema`: rules looked at without serving anything."""

import json
import os
import sys
from collections.abc import Iterable
from typing import Any

import click

from .ambassador import RuleSet, parse
from .documentschema import document_schema
from .exceptions import ClientError, SourceError
from .explanation import Explanation, attributes_of, diagnostic_json, explain, explain_batch, explanation_json
from .lint import lint
from .mapping import Mapping
from .messages import Diagnostic, Reply, RequestHead, UpstreamRequest
from .sources import FileSource
from .table import RouteTable

_COLOURS = {"error": "red", "warning": "yellow", "notice": "cyan"}
_PATHS = click.Path(exists=True, readable=True)


def _load(paths: Iterable[str], ambassador_id: str) -> RuleSet:
    first, *more = paths
    return parse(FileSource(first, *more).load(), environ=os.environ, ambassador_id=ambassador_id)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=_PATHS)
@click.option("--format", "form", type=click.Choice(["text", "json", "github"]), default="text", show_default=True)
@click.option("--ambassador-id", default="default", show_default=True, help="Pass over Mappings for other ids.")
@click.option("--shadow-writes", is_flag=True, envvar="CANARY_MW_SHADOW_WRITES", help="Shadows get copies of writes.")
def check(paths: tuple[str, ...], form: str, ambassador_id: str, shadow_writes: bool) -> None:
    """Look over the rules in files and directories.

    Exit code 0: clean, or warnings only. 1: errors. 2: wrong usage.
    """
    try:
        rules = _load(paths, ambassador_id)
    except SourceError as exc:
        found = [Diagnostic(severity="error", code="source", message=exc.message, file=exc.file or paths[0])]
        count = 0
    else:
        table = RouteTable.build(rules.mappings, settings=rules.surroundings.globals)
        found = [*rules.diagnostics, *table.diagnostics, *lint(table, shadow_writes=shadow_writes)]
        found.sort(key=lambda d: (d.file, d.line or 0))
        count = len(rules.mappings)
    _FORMS[form](found)
    if form == "text":
        click.echo(_summary(found, count), err=True)
    sys.exit(1 if any(d.severity == "error" for d in found) else 0)


def _as_text(found: list[Diagnostic]) -> None:
    for diagnostic in found:
        word = click.style(diagnostic.severity, fg=_COLOURS[diagnostic.severity], bold=True)
        click.echo(str(diagnostic).replace(f" {diagnostic.severity} ", f" {word} ", 1))


def _as_json(found: list[Diagnostic]) -> None:
    click.echo(json.dumps([diagnostic_json(d) for d in found], indent=2))


def _as_github(found: list[Diagnostic]) -> None:
    """Workflow commands: GitHub shows them beside the lines of a pull request."""
    for d in found:
        text = d.message + (f" ({d.hint})" if d.hint else "")
        escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        line = f",line={d.line}" if d.line else ""
        click.echo(f"::{d.severity} file={d.file}{line},title={d.code}::{escaped}")


_FORMS = {"text": _as_text, "json": _as_json, "github": _as_github}


def _summary(found: list[Diagnostic], mappings: int) -> str:
    counts = [(sum(d.severity == s for d in found), s) for s in _COLOURS]
    told = ", ".join(f"{n} {word}{'s' if n != 1 else ''}" for n, word in counts if n) or "clean"
    return f"{mappings} Mapping{'s' if mappings != 1 else ''}: {told}"


@click.command(name="explain")
@click.argument("path", required=False, type=_PATHS)
@click.argument("method", required=False)
@click.argument("target", required=False)
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header of the request.")
@click.option("--host", default="localhost", show_default=True, help="Host of the request.")
@click.option("--local", multiple=True, help="Service that the app is: explain as the middleware routes.")
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
    """Tell what happens to a request METHOD TARGET under the rules in PATH, by the code that routes."""
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


@click.command()
def schema() -> None:
    """Print the JSON Schema of Mapping and Module documents, for editors with a YAML language server."""
    click.echo(json.dumps(document_schema(), indent=2))


def _batch() -> None:
    for line in sys.stdin:
        if line.strip():
            print(json.dumps(explain_batch(json.loads(line), dict(os.environ))), flush=True)


def _table(path: str, local: tuple[str, ...]) -> RouteTable:
    try:
        rules = _load([path], "default")
    except SourceError as exc:
        raise click.ClickException(str(exc)) from None
    settings = rules.surroundings.globals
    table = RouteTable.build(rules.mappings, local=local, middleware=bool(local), settings=settings)
    errors = [d for d in (*rules.diagnostics, *table.diagnostics) if d.severity == "error"]
    for diagnostic in errors:
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
    for share, variant, name, what, *rest in rows:
        colour = {"gray": "magenta", "stable": "green"}.get(variant)
        cells = (share.rjust(widths[0]), click.style(variant.ljust(widths[1]), fg=colour), name.ljust(widths[2]))
        click.echo("  ".join((*cells, what)))
        for line in rest:
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
        where = [f" {value.decode()}" for key, value in outcome.headers or () if key == b"location"]
        return [share, variant, name, f"answered {outcome.status}{''.join(where)}"]
    lines = [*_request_lines(outcome), *_kept_lines(decision.mapping)]
    return [share, variant, name, f"-> {decision.mapping.service.text}", *lines]


def _kept_lines(mapping: Mapping) -> list[str]:
    kept = attributes_of(mapping)
    return ["kept: " + ", ".join(f"{name}: {json.dumps(value)}" for name, value in kept.items())] if kept else []


def _request_lines(request: UpstreamRequest) -> list[str]:
    host = request.headers[0][1].decode("latin-1")
    timeout = "none" if request.timeout is None else f"{request.timeout:g} s"
    return [f"{request.method} {request.target.decode('latin-1')}  host: {host}  timeout: {timeout}"]
