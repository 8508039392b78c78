"""The group `canary-mw release`."""

import click

from canary_mw.cli.release import commands, show
from canary_mw.cli.release.plan import plan_command
from canary_mw.cli.release.waiting import status


@click.group()
def release() -> None:
    """How far releases are, and commands for them."""


for each in (
    *(show.list_command, show.get, show.watch, show.history, status, plan_command),
    *(commands.promote, commands.abort, commands.retry, commands.undo),
    *(commands.pause, commands.resume, commands.set_weight),
):
    release.add_command(each)
