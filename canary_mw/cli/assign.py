"""`canary-mw assign`."""

import csv
import sys
from collections.abc import Iterable, Iterator

import click

from canary_mw.cli.rules import EXISTING_PATH, ambassador_id_option, load_rules, standard_input
from canary_mw.routing.assignment import CompiledRelease
from canary_mw.routing.table import RouteTable


@click.command()
@click.argument("path", type=EXISTING_PATH)
@click.argument("release")
@click.argument("file", type=click.File("rb"), required=False)
@click.option("--local", multiple=True, metavar="NAME", help="Name of the service that the app is, in a middleware.")
@ambassador_id_option
def assign(path: str, release: str, file: Iterable[bytes] | None, local: tuple[str, ...], ambassador_id: str) -> None:
    """Print which variant each key gets from RELEASE under the rules in PATH, as CSV: key, variant, slot.

    Keys are the lines of FILE, without FILE those of standard input. Lists, layer and holdout count; what else a
    request could bring does not.
    """
    rules = load_rules([path], ambassador_id, middleware=bool(local))
    table = RouteTable.build(
        rules.mappings,
        local=local,
        middleware=bool(local),
        settings=rules.shared.settings,
        releases=rules.releases,
    )
    found = table.releases.get(release)
    if found is None:
        errors = [str(each) for each in rules.diagnostics if each.severity == "error"]
        known = ", ".join(table.releases) or "none"
        raise click.ClickException("\n".join((*errors, f"no release {release} is in force; in force: {known}")))
    csv.writer(sys.stdout, lineterminator="\n").writerows(_rows(found, file or standard_input()))


def _rows(release: CompiledRelease, lines: Iterable[bytes]) -> Iterator[tuple[str, ...]]:
    yield "key", "variant", "slot"
    for line in lines:
        key = line.rstrip(b"\r\n")
        if key:
            assigned = release.assignment_of(key)
            slot = "" if assigned.slot is None else str(assigned.slot)
            yield key.decode("utf-8", "backslashreplace"), assigned.variant or "", slot
