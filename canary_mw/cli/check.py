"""`canary-mw check` and `schema`: inspect rules without serving them."""

import json
import os
import sys
from dataclasses import replace

import click

from canary_mw.cli.rules import ambassador_id_option, load_rules, local_in_clusters, rule_paths
from canary_mw.config.document import Diagnostic
from canary_mw.config.parser import RuleSet
from canary_mw.config.reference.json_schema import document_schema
from canary_mw.config.weights import WEIGHT_RANGE
from canary_mw.exceptions import ConfigError
from canary_mw.inspection.explanation_json import diagnostic_json
from canary_mw.inspection.filters import lint_filters
from canary_mw.inspection.lint import lint, lint_variables
from canary_mw.inspection.lint_documents import lint_documents
from canary_mw.inspection.lint_settings import lint_local, lint_upstreams
from canary_mw.middleware.identity import local_names
from canary_mw.routing.table import RouteTable
from canary_mw.server.settings import Settings, variable
from canary_mw.upstreams.overrides import parse_origins

_COLOURS = {"error": "red", "warning": "yellow", "notice": "cyan"}


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(), metavar="[PATH]...")
@click.option(
    "--format", "output_format", type=click.Choice(["text", "json", "github"]), default="text", show_default=True
)
@click.option("--strict", is_flag=True, help="Warnings fail too: exit code 1.")
@click.option(
    "--local", multiple=True, metavar="NAME", help="Check for a middleware, whose app is the service NAME. Repeatable."
)
@click.option(
    "--upstream",
    multiple=True,
    metavar="NAME=URL",
    help=f"As for serve: report services without one, and names that no Mapping uses. [env: {variable('upstream')}]"
    " Repeatable.",
)
@ambassador_id_option
@click.option("--shadow-writes", is_flag=True, envvar="CANARY_MW_SHADOW_WRITES", help="Shadows get copies of writes.")
def check(
    paths: tuple[str, ...],
    output_format: str,
    strict: bool,
    local: tuple[str, ...],
    upstream: tuple[str, ...],
    ambassador_id: str,
    shadow_writes: bool,
) -> None:
    """Check the rules in files and directories; - is standard input, k8s://NAMESPACE the API of a cluster.

    Without PATH the rules are those of CANARY_MW_RULES. Findings are printed to stdout, one a line: file, line,
    severity, code, what is wrong, and what to do.

    Exit code 0: clean, notices, or warnings. 1: errors, or with --strict warnings. 2: wrong usage.
    """
    given = rule_paths(paths)
    if not given:
        raise click.UsageError(f"no rules: give PATH, - for standard input, or set {variable('rules')}")
    names, upstreams = local_in_clusters(given, local_names(local, {})), _upstreams(upstream)
    rules = load_rules(given, ambassador_id, middleware=bool(names))
    table = RouteTable.build(
        rules.mappings,
        local=names,
        middleware=bool(names),
        settings=rules.shared.settings,
        releases=rules.releases,
    )
    found = [
        *_lint(rules, table, shadow_writes),
        *lint_local(table, names),
        *lint_filters(table, guard_unmapped=_guard_unmapped()),
    ]
    if upstreams:
        found += lint_upstreams(table, upstreams, names)
    found.sort(key=lambda d: (d.file, d.line or 0))
    _PRINTERS[output_format](found)
    if output_format == "text":
        click.echo(_summary(found, len(rules.mappings)), err=True)
    failing = {"error", "warning"} if strict else {"error"}
    sys.exit(1 if any(d.severity in failing for d in found) else 0)


def _upstreams(texts: tuple[str, ...]) -> frozenset[str]:
    """The names of `--upstream`.

    Raises:
        click.UsageError: one is not NAME=URL.
    """
    try:
        settings = Settings(upstream=texts) if texts else Settings.from_environ(_only(variable("upstream")))
        given = settings.upstreams
        for name, urls in given.items():
            parse_origins(name, urls)
    except ConfigError as exc:
        raise click.UsageError(str(exc)) from exc
    return frozenset(given)


def _guard_unmapped() -> bool:
    return Settings.from_environ(_only(variable("guard_unmapped"))).guard_unmapped


def _only(name: str) -> dict[str, str]:
    """The environment without all other variables."""
    return {name: os.environ[name]} if name in os.environ else {}


def _lint(rules: RuleSet, table: RouteTable, shadow_writes: bool) -> list[Diagnostic]:
    found = [*map(_for_both_modes, rules.diagnostics), *table.diagnostics, *lint(table, shadow_writes=shadow_writes)]
    return [*found, *lint_documents(rules), *lint_variables(rules, os.environ)]


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
    """Print the JSON Schema of Mapping, Module and GrayRelease documents, for editors with a YAML language server."""
    click.echo(json.dumps(document_schema(), indent=2))
