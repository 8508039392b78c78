"""RATELIMIT: what a RateLimitService adds to a request, here and in Envoy with the filter that Emissary makes of it."""

import sys
from pathlib import Path

from . import peers, rules, servers
from .compare import Options, Starter, cpu_added, side_by_side
from .processes import Failed, free_port, running
from .report import Section
from .wrk import CONNECTIONS, script

MAPPINGS = 10
TITLE = f"standalone, {MAPPINGS} Mappings, {CONNECTIONS} connections, with and without a RateLimitService"
NOTES = f"""\
The RateLimitService is a program by grpcio, which lets each request pass; its CPU does not count, but it takes a core
of the machine, so requests per second say nothing. One descriptor a request. wrk -t1 -c{CONNECTIONS}."""
ASKING, ALONE, ENVOY_ASKING, ENVOY_ALONE = "canary-mw, asking", "canary-mw", "envoy, asking", "envoy"
LIMITED = """---
apiVersion: getambassador.io/v3alpha1
kind: Module
metadata: {{name: ambassador}}
spec: {{config: {{default_labels: {{ambassador: {{defaults: [{{generic_key: {{value: shop}}}}]}}}}}}}}
---
apiVersion: getambassador.io/v3alpha1
kind: RateLimitService
metadata: {{name: limits}}
spec: {{service: '127.0.0.1:{limiter}', protocol_version: v3, timeout_ms: 5000}}
"""


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx or wrk.
    """
    section = Section("RATELIMIT", TITLE, [NOTES])
    port, health = free_port(), free_port()
    command = [sys.executable, "-m", "benchmarks.limiter", str(port), str(health)]
    with servers.upstream(folder) as ports:
        try:
            with running("limiter", command, health, folder):
                _measure(section, ports, port, options, folder)
        except Failed as exc:
            section.notes.append(f"Not measured: {exc}. The service needs grpcio and xds-protos (the group dev).")
    return section


def _measure(section: Section, ports: servers.Upstream, limiter: int, options: Options, folder: Path) -> None:
    path = folder / "limited" / "rules.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(_rules(limiter), encoding="utf-8")
    starters: dict[str, Starter] = {
        ALONE: servers.canary_mw(folder, ports, MAPPINGS),
        ASKING: servers.canary_mw(folder, ports, MAPPINGS, path=path),
        ENVOY_ALONE: peers.envoy(folder, ports, MAPPINGS),
        ENVOY_ASKING: peers.envoy(folder, ports, MAPPINGS, limiter=limiter),
    }
    samples = side_by_side(section, starters, script(folder, MAPPINGS // 2, gray=True), options)
    section.figure("CPU per request added by the RateLimitService", cpu_added(samples, ASKING, ALONE), "us")
    section.figure("the same in Envoy", cpu_added(samples, ENVOY_ASKING, ENVOY_ALONE), "us")


def _rules(limiter: int) -> str:
    return rules.text(MAPPINGS) + LIMITED.format(limiter=limiter)
