"""The command line."""

import os
from time import time

import click

from canary_mw import __version__
from canary_mw.cli.assign import assign
from canary_mw.cli.check import check, schema
from canary_mw.cli.evidence import evidence
from canary_mw.cli.explain import explain_command
from canary_mw.cli.release.group import release
from canary_mw.cli.serve import serve
from canary_mw.cli.server_libraries import server_libraries
from canary_mw.cli.status import healthcheck, status
from canary_mw.cli.top.command import top
from canary_mw.config.ambassador.traffic_policies import seconds
from canary_mw.exceptions import ConfigError
from canary_mw.forwarding.trusted_headers import SIGNATURE
from canary_mw.middleware.trust import trusted_headers
from canary_mw.server.settings import variable


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="canary-mw")
@click.pass_context
def main(context: click.Context) -> None:
    """Gray releases by Ambassador Mapping rules."""
    if os.environ.get("NO_COLOR"):
        context.color = False


main.add_command(assign)
main.add_command(check)
main.add_command(evidence)
main.add_command(explain_command)
main.add_command(healthcheck)
main.add_command(release)
main.add_command(schema)
main.add_command(serve)
main.add_command(status)
main.add_command(top)


@main.command()
@click.option("--once", is_flag=True, help="Exit after the table; with --fault when gray is rolled back.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port of the proxy.")
@click.option("--fault", type=click.FloatRange(0, 100), default=0, help="Percent of its requests that gray fails.")
def demo(once: bool, port: int, fault: float) -> None:
    """Show a gray release on this machine.

    Starts two small upstreams and a proxy for them, sends 2,200 requests, and shows which version answered them. Then
    requests of 1,000 users go on, and the release takes its next steps, or takes itself back where gray fails.
    """
    with server_libraries():
        from canary_mw.cli.demo import run

    run(once=once, port=port, fault=fault)


@main.command()
@click.argument("headers", nargs=-1, required=True, metavar="NAME=VALUE...")
@click.option(
    "--key-file", required=True, envvar=variable("header_key_file"), show_envvar=True, help="Its first key signs."
)
@click.option("--valid", default="8h", show_default=True, metavar="DURATION", help="From now on, as 30m or 8h.")
def sign(headers: tuple[str, ...], key_file: str, valid: str) -> None:
    """Print headers and their signature, for a proxy with --trusted-headers and --header-key-file."""
    pairs = [header.partition("=") for header in headers]
    if invalid := [name for name, equals, _ in pairs if not (name.strip() and equals)]:
        raise click.UsageError(f"{invalid[0]!r} is not NAME=VALUE")
    try:
        trusted = trusted_headers([name for name, _, _ in pairs], key_file)
        assert trusted is not None, "there is at least one name"
        expires = int(time() + seconds(valid))
        signed = [(name.strip(), *trusted.sign(name, value, expires)) for name, _, value in pairs]
    except ConfigError as exc:
        raise click.UsageError(str(exc)) from exc
    for name, value, _ in signed:
        click.echo(f"{name}: {value}")
    click.echo(f"{SIGNATURE.decode()}: {', '.join(signature for _, _, signature in signed)}")
