"""`canary-mw status` and `canary-mw healthcheck`: is a server ready, and with which rules?"""

import json
import sys
import time
from typing import Any, NamedTuple

import click

from canary_mw.cli.admin_port import Refusal, Unreachable, admin_option, ask, ask_json
from canary_mw.cli.terminal import visible

NOT_READY, TIMED_OUT = 1, 3
# Seconds between two looks with --wait.
_PAUSE = 0.2


class Status(NamedTuple):
    """What is known of a server.

    Attributes:
        reason: what its readiness says, or why it is not known.
        about: the answer of the API; None where there is none.
    """

    ready: bool
    reason: str
    about: Any = None

    @property
    def everywhere(self) -> bool:
        """Whether all workers have the newest rules."""
        return self.ready and self.about is not None and _rules(self.about)["workers_on_it"] == _workers(self.about)


def _rules(about: Any) -> Any:
    return about["rules"]


def _workers(about: Any) -> int:
    """The workers that run, or that `canary-mw serve` was told to run: one that starts is not there yet."""
    told = [each["value"] for each in about["settings"] if each["name"] == "workers" and each["value"].isdigit()]
    return max([int(about["scope"]["workers"]), *map(int, told)])


@click.command()
@admin_option
@click.option("--wait", is_flag=True, help="Until it is ready, and all workers have the newest rules.")
@click.option("--timeout", type=click.FloatRange(0), default=60.0, show_default=True, help="Seconds that --wait takes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(admin: str, wait: bool, timeout: float, as_json: bool) -> None:
    """Say whether a server is ready, with which rules, and on how many of its workers they are live.

    The exit code is 0 when it is ready, 1 when it is not, and 3 when --wait has waited in vain.
    """
    found = _waited(admin, timeout) if wait else look(admin)
    if as_json:
        click.echo(json.dumps(_as_json(admin, found), indent=2))
    else:
        click.echo("\n".join(_lines(admin, found)))
    if wait and not found.everywhere:
        sys.exit(TIMED_OUT)
    sys.exit(0 if found.ready else NOT_READY)


@click.command()
@admin_option
def healthcheck(admin: str) -> None:
    """Exit with 0 when a server is ready, else with 1, and print nothing: for the health check of a container."""
    try:
        ready = ask(admin, "/readyz").status == 200
    except Unreachable:
        ready = False
    sys.exit(0 if ready else NOT_READY)


def look(admin: str) -> Status:
    """The status of a server now."""
    try:
        answer = ask(admin, "/readyz")
        reason = answer.body.decode("utf-8", "replace").strip()
        return Status(answer.status == 200, reason, ask_json(admin, "/api/v1/about"))
    except (Unreachable, Refusal) as exc:
        return Status(False, f"not ready: {exc}")


def _waited(admin: str, timeout: float) -> Status:
    """The status once all workers have the newest rules, or at the end of the time."""
    end = time.monotonic() + timeout
    while True:
        found = look(admin)
        if found.everywhere or time.monotonic() >= end:
            return found
        time.sleep(min(_PAUSE, max(end - time.monotonic(), 0.0)))


def _lines(admin: str, found: Status) -> list[str]:
    if found.about is None:
        return [visible(found.reason)]
    rules, scope = _rules(found.about), found.about["scope"]
    count = _workers(found.about)
    workers = f"{count} {'worker' if count == 1 else 'workers'}"
    lines = [visible(found.reason)]
    if rules["since"]:
        lines[0] += f" since {rules['since']}, live on {rules['workers_on_it']} of {workers}"
    lines.append(f"pod {visible(scope['pod'])}, canary-mw {found.about['version']}")
    if rules["error"]:
        lines.append(f"error: {visible(rules['error'])}")
    if rules["problems"]:
        problems = f"{rules['problems']} {'problem' if rules['problems'] == 1 else 'problems'}"
        lines.append(f"{problems}: {admin}/ambassador/v0/diag/rules")
    return lines


def _as_json(admin: str, found: Status) -> dict[str, Any]:
    about = found.about or {}
    shown = {name: about.get(name) for name in ("version", "scope", "rules")}
    return {"admin": admin, "ready": found.ready, "everywhere": found.everywhere, "reason": found.reason, **shown}
