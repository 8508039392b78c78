"""`canary-mw check` and `schema`: inspect rules without serving them."""

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import replace

import click

from canary_mw.config.document import Diagnostic
from canary_mw.config.parser import RuleSet, parse
from canary_mw.config.reference.json_schema import document_schema
from canary_mw.config.weights import WEIGHT_RANGE
from canary_mw.control.sources.file import FileSource
from canary_mw.inspection.explanation_json import diagnostic_json
from canary_mw.inspection.lint import lint, lint_variables
from canary_mw.routing.table import RouteTable

_COLOURS = {"error": "red", "warning": "yellow", "notice": "cyan"}
EXISTING_PATH = click.Path(exists=True, readable=True)


def load_rules(paths: Iterable[str], ambassador_id: str) -> RuleSet:
    """Read and parse rules from files and directories, with all variables, as `canary-mw serve` does.

    What cannot be read is an error among the diagnostics.
    """
    first, *more = paths
    return parse(FileSource(first, *more).load(), environ=os.environ, ambassador_id=ambassador_id)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=EXISTING_PATH)
@click.option(
    "--format", "output_format", type=click.Choice(["text", "json", "github"]), default="text", show_default=True
)
@click.option("--ambassador-id", default="default", show_default=True, help="Ignore Mappings for other ids.")
@click.option("--shadow-writes", is_flag=True, envvar="CANARY_MW_SHADOW_WRITES", help="Shadows get copies of writes.")
def check(paths: tuple[str, ...], output_format: str, ambassador_id: str, shadow_writes: bool) -> None:
    """Check the rules in files and directories.

    Exit code 0: clean, or warnings only. 1: errors. 2: wrong usage.
    """
    rules = load_rules(paths, ambassador_id)
    table = RouteTable.build(rules.mappings, settings=rules.shared.settings)
    found = [*map(_for_both_modes, rules.diagnostics), *table.diagnostics, *lint(table, shadow_writes=shadow_writes)]
    found += lint_variables(rules, os.environ)
    found.sort(key=lambda d: (d.file, d.line or 0))
    _PRINTERS[output_format](found)
    if output_format == "text":
        click.echo(_summary(found, len(rules.mappings)), err=True)
    sys.exit(1 if any(d.severity == "error" for d in found) else 0)


def _for_both_modes(diagnostic: Diagnostic) -> Diagnostic:
    """A wrong weight of a Mapping that is alone in its group: a warning for the proxy, and an error in a middleware."""
    return replace(diagnostic, severity="error") if diagnostic.code == WEIGHT_RANGE else diagnostic


def _print_text(found: list[Diagnostic]) -> None:
    for diagnostic in found:
        word = click.style(diagnostic.severity, fg=_COLOURS[diagnostic.severity], bold=True)
        click.echo(str(diagnostic).replace(f" {diagnostic.severity} ", f" {word} ", 1))


def _print_json(found: list[Diagnostic]) -> None:
    click.echo(json.dumps([diagnostic_json(d) for d in found], indent=2))


def _print_github(found: list[Diagnostic]) -> None:
    """Print workflow commands, which GitHub shows next to the lines of a pull request."""
    for d in found:
        text = d.message + (f" ({d.hint})" if d.hint else "")
        escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        line = f",line={d.line}" if d.line else ""
        click.echo(f"::{d.severity} file={d.file}{line},title={d.code}::{escaped}")


_PRINTERS = {"text": _print_text, "json": _print_json, "github": _print_github}


def _summary(found: list[Diagnostic], mappings: int) -> str:
    counts = [(sum(d.severity == s for d in found), s) for s in _COLOURS]
    totals = ", ".join(f"{n} {word}{'s' if n != 1 else ''}" for n, word in counts if n) or "clean"
    return f"{mappings} Mapping{'s' if mappings != 1 else ''}: {totals}"


@click.command()
def schema() -> None:
    """Print the JSON Schema of Mapping and Module documents, for editors with a YAML language server."""
    click.echo(json.dumps(document_schema(), indent=2))
