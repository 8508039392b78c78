"""FALLBACK: what a request costs that stable answers after gray has failed, in requests that gray answers."""

from contextlib import ExitStack
from pathlib import Path

from . import rules, servers
from .compare import Options, Starter, Target, cpu_ratios, in_turn, start, table
from .processes import free_port
from .report import Section
from .servers import Upstream
from .wrk import script

LIMIT = 2.0
TITLE = "the safety net of a release, standalone"
NOTES = """\
One proxy, one release that sends everybody to gray. Behind one prefix gray answers; behind the other it answers 503, so
that each request is sent twice. The rounds of the two are paired."""
_RULES = """\
apiVersion: canary-mw/v1
kind: GrayRelease
name: bench
gray: {v2: {weight: 100, mappings: [gray-0, gray-1]}}
missing: roll
fallback: {budget: {percent: 100, min: 1000000}}
"""
_MAPPING = """\
---
apiVersion: getambassador.io/v2
kind: Mapping
name: %s
prefix: %s
service: %s
"""


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx or wrk.
    """
    section = Section("FALLBACK", TITLE, [NOTES])
    ports = Upstream(free_port(), free_port())
    body = "".join(
        f"  server {{ listen 127.0.0.1:{port} backlog=2048; location / {{ return {status} '{status}'; }} }}\n"
        for port, status in ((ports.stable, 200), (ports.gray, 503))
    )
    with ExitStack() as stack:
        stack.enter_context(servers.nginx_process("variants", body, ports.stable, folder))
        starters: dict[str, Starter] = {
            "canary-mw": servers.canary_mw(folder, ports, 0, path=_rules(folder), checked=False),
        }
        started = start(stack, starters, section)
        targets = [
            Target(name, started["canary-mw"], script(folder, 1, gray=False, first=number))
            for name, number in (("stable answers for gray", 0), ("gray answers", 1))
            if started
        ]
        samples = in_turn(targets, options)
    section.table = table(samples)
    ratios = cpu_ratios(samples, "stable answers for gray", "gray answers")
    section.at_most("CPU of a fallback over that of a request to gray", ratios, LIMIT, "x", 2)
    return section


def _rules(folder: Path) -> Path:
    """Two groups: gray is a service that fails in the first one, and the stable service in the second one."""
    path = folder / "fallback.yaml"
    text = _RULES
    for number, service in enumerate(("gray", "stable")):
        text += _MAPPING % (f"gray-{number}", rules.prefix(number), service) + "weight: 0\n"
        text += _MAPPING % (f"stable-{number}", rules.prefix(number), "stable")
    path.write_text(text, encoding="utf-8")
    return path
