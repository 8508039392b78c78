"""`canary-mw explain`."""

import json
import os
import sys
from typing import Any

import click
from click.core import ParameterSource

from canary_mw.cli.rules import (
    STDIN,
    ambassador_id_option,
    load_documents,
    load_rules,
    local_in_clusters,
    rule_paths,
    standard_input,
)
from canary_mw.config.variables import VARIABLE_CODES
from canary_mw.control.id_files import IdFiles
from canary_mw.exceptions import ClientError
from canary_mw.http.messages import RequestHead
from canary_mw.inspection.batch import answer_line
from canary_mw.inspection.explanation import explain
from canary_mw.inspection.explanation_json import explanation_json
from canary_mw.inspection.explanation_text import Role, explanation_lines
from canary_mw.inspection.lint import lint_variables
from canary_mw.inspection.lint_documents import lint_documents
from canary_mw.routing.person import Person
from canary_mw.routing.table import RouteTable
from canary_mw.server.settings import variable

_COLOURS: dict[Role, str] = {"gray": "magenta", "stable": "green", "matched": "green", "not matched": "red"}

_USAGE = f"PATH, METHOD and TARGET are needed, or METHOD and TARGET with {variable('rules')} (or --batch)"


# Options that a line of a batch has fields for.
_REQUEST_OPTIONS = {
    "headers": "-H",
    "host": "--host",
    "local": "--local",
    "client": "--client",
    "users": "--user",
    "sessions": "--session",
    "predicates": "--predicate",
    "trusted": "--trusted",
    "as_json": "--json",
}


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
@click.option("--client", default="127.0.0.1", show_default=True, metavar="IP", help="Address of the client.")
@click.option("--user", "users", multiple=True, metavar="PATH=VALUE", help="A value of the app's user. Repeatable.")
@click.option("--session", "sessions", multiple=True, metavar="PATH=VALUE", help="A value of the session. Repeatable.")
@click.option("--predicate", "predicates", multiple=True, metavar="NAME=true", help="Its answer. Repeatable.")
@click.option("--trusted", is_flag=True, help="The peer is trusted: its lane and its choice count.")
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
    client: str,
    users: tuple[str, ...],
    sessions: tuple[str, ...],
    predicates: tuple[str, ...],
    trusted: bool,
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
      requests  objects: method, path, and optionally host, headers, client, user, session, predicates,
                peer_trusted

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
        head = RequestHead(method, target, [("host", host), *map(_header, headers)], client=client)
    except ClientError as exc:
        raise click.UsageError(f"{target}: {exc}; such a request is answered {exc.status_hint}") from None
    explanation = explain(table, head, Person(_nested(users), _nested(sessions), _answers(predicates), trusted))
    if as_json:
        click.echo(json.dumps(explanation_json(table, explanation), indent=2))
    else:
        click.echo("\n".join(explanation_lines(explanation, _styled)))


def _check_batch_options(context: click.Context) -> None:
    for name, flag in _REQUEST_OPTIONS.items():
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"{flag} has no effect with --batch: each line says it by itself")


def _batch(paths: tuple[str, ...], ambassador_id: str) -> int:
    """Answer the lines of standard input; returns the exit code."""
    if STDIN in paths:
        raise click.UsageError("with --batch standard input holds the requests: name a file of rules")
    documents = load_documents(paths)
    failed, read_ids = False, IdFiles().read
    for number, line in enumerate(standard_input(), 1):
        if line.strip():
            answer = answer_line(number, line, os.environ, documents, ambassador_id, read_ids)
            failed |= "error" in answer
            print(json.dumps(answer), flush=True)
    return int(failed)


def _table(paths: tuple[str, ...], local: tuple[str, ...], ambassador_id: str) -> RouteTable:
    rules = load_rules(paths, ambassador_id, middleware=bool(local))
    if rules.files and all(file.document.error for file in rules.files.values()):
        raise click.ClickException("\n".join(map(str, rules.diagnostics)))
    settings = rules.shared.settings
    table = RouteTable.build(
        rules.mappings,
        local=local_in_clusters(paths, local),
        middleware=bool(local),
        settings=settings,
        releases=rules.releases,
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


def _nested(pairs: tuple[str, ...]) -> dict[str, Any] | None:
    """Values by dotted paths, as a map of maps."""
    found: dict[str, Any] = {}
    for pair in pairs:
        path, equals, value = pair.partition("=")
        *parents, name = path.split(".")
        if not equals or not name:
            raise click.UsageError(f"{pair!r}: write PATH=VALUE")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise click.UsageError(f"{pair!r}: {parent} has a value already")
        place[name] = value
    return found or None


def _answers(pairs: tuple[str, ...]) -> dict[str, bool]:
    answers = {name: value for name, _, value in (pair.partition("=") for pair in pairs)}
    if wrong := [value for value in answers.values() if value not in ("true", "false")]:
        raise click.UsageError(f"--predicate {wrong[0]!r}: write NAME=true or NAME=false")
    return {name: value == "true" for name, value in answers.items()}


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.UsageError(f"-H {text!r}: write 'name: value'")
    return name.strip(), value.strip()


def _styled(text: str, role: Role) -> str:
    return click.style(text, fg=_COLOURS[role])
