"""`canary-mw release plan`: how long the steps of a release take at a given traffic, and what they find."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import click

from canary_mw.cli.release.asking import as_json, output_option
from canary_mw.cli.release.forecast_view import forecast_json, forecast_lines
from canary_mw.cli.release.painting import painted
from canary_mw.cli.rules import ambassador_id_option, load_rules, rule_paths
from canary_mw.cli.terminal import visible
from canary_mw.config.canary.fields import FieldError
from canary_mw.config.canary.plan import plan_of
from canary_mw.config.canary.quantities import rate
from canary_mw.rollout.forecast import Traffic, forecast
from canary_mw.rules.plan import Plan

# A number of requests with more digits is a slip of the keyboard.
_MOST_RATE = 1e7


class _Named(NamedTuple):
    """A plan, with the release that has it; "" where it was made of options."""

    name: str
    plan: Plan


def _percent(context: click.Context, parameter: click.Parameter, written: str) -> float:
    try:
        return rate(written if written.endswith("%") else float(written), str(parameter.name), with_zero=True)
    except (FieldError, ValueError):
        raise click.BadParameter(f"{written!r} is no percent: write 0.5%") from None


def _other_rates(context: click.Context, parameter: click.Parameter, written: tuple[str, ...]) -> dict[str, float]:
    pairs = [each.rpartition("=") for each in written]
    if any(not name for name, _, _ in pairs):
        raise click.BadParameter("write NAME=PERCENT, as paid=2%")
    return {name: _percent(context, parameter, percent) for name, _, percent in pairs}


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that make a plan, where it is not in a file."""
    for option in (
        click.option("--margin", metavar="PERCENT", help="Share of all requests that a step may newly hit. [0.5%]"),
        click.option("--alpha", metavar="PERCENT", help="Probability of a false rollback. [1%]"),
        click.option("--pause", metavar="DURATION", help="Of each step, at least. [10m]"),
        click.option("--steps", metavar="PERCENTS", help="As 1,5,25,50,100, in place of those of PATH."),
    ):
        command = option(command)
    return command


@click.command("plan")
@click.argument("paths", nargs=-1, type=click.Path(), metavar="[PATH]...")
@click.option(
    "--rps",
    type=click.FloatRange(0, _MOST_RATE, min_open=True),
    required=True,
    help="Requests a second of users who are drawn, gray and stable together.",
)
@click.option(
    "--error-rate",
    required=True,
    callback=_percent,
    metavar="PERCENT",
    help="Requests of stable that fail.",
)
@click.option(
    "--rate",
    "rates",
    multiple=True,
    callback=_other_rates,
    metavar="NAME=PERCENT",
    help="Of another metric; of a value how many requests record one. Repeatable.",
)
@click.option("--users", type=click.IntRange(1), help="Different users during a step; without it as many as needed.")
@_options
@ambassador_id_option
@output_option
def plan_command(
    paths: tuple[str, ...],
    rps: float,
    error_rate: float,
    rates: dict[str, float],
    users: int | None,
    ambassador_id: str,
    output: str,
    **written: str | None,
) -> None:
    """Say how long each step of a release takes at least, and how bad gray must be to be found by its end.

    The steps are those of the releases in PATH, else 1,5,25,50,100 with 10 minutes each. No server is asked: times
    follow from the statistics that judge releases, and what is found is simulated with a fixed seed.
    """
    changes = {name: value for name, value in written.items() if value is not None}
    if paths and changes:
        raise click.UsageError(f"--{next(iter(changes))} changes no file: leave PATH out, or write it there")
    plans = list(_in_files(paths, ambassador_id)) if paths else [_Named("", _of_options(changes))]
    traffic = Traffic(rps, error_rate, users, rates)
    found = [(each, forecast(each.plan, traffic)) for each in plans]
    if output == "json":
        click.echo(as_json({"releases": [forecast_json(each.name, traffic, steps) for each, steps in found]}))
        return
    for number, (each, steps) in enumerate(found):
        click.echo("\n" * bool(number) + (f"{visible(each.name)}\n" if len(found) > 1 else ""), nl=False)
        click.echo(painted(forecast_lines(each.plan, traffic, steps)))


def _in_files(paths: tuple[str, ...], ambassador_id: str) -> Iterator[_Named]:
    rules = load_rules(rule_paths(paths), ambassador_id)
    found = [_Named(each.name, each.plan) for each in rules.releases.in_force if each.plan is not None]
    if not found:
        wrong = next((each for each in rules.diagnostics if each.severity == "error"), None)
        reason = f": {wrong.file}:{wrong.line}: {wrong.message}" if wrong else "; leave PATH out for steps: auto"
        raise click.ClickException(visible(f"no release has steps{reason}"))
    yield from found


def _with_sign(percent: str) -> str:
    return percent if percent.endswith("%") else f"{percent}%"


def _of_options(written: dict[str, str]) -> Plan:
    pause = written.get("pause", "10m")
    try:
        weights = [float(each) for each in written.get("steps", "1,5,25,50,100").split(",")]
    except ValueError:
        raise click.BadParameter("write percents with commas between them, as 1,5,25,50,100") from None
    steps = [step for each in weights for step in ({"setWeight": each}, {"pause": {"duration": pause}})]
    analysis = {name: _with_sign(written[name]) for name in ("alpha", "margin") if name in written}
    try:
        return plan_of({"steps": steps[:-1], "analysis": analysis})
    except FieldError as error:
        raise click.UsageError(f"{error.message}: {error.hint}" if error.hint else error.message) from None
