"""AUTH: what an AuthService adds to a request, here and in Envoy with the filter that Emissary makes of it."""

from pathlib import Path

from . import peers, rules, servers
from .compare import Options, Starter, cpu_added, side_by_side
from .report import Section
from .wrk import CONNECTIONS, script

MAPPINGS = 10
TITLE = f"standalone, {MAPPINGS} Mappings, {CONNECTIONS} connections, with and without an AuthService over HTTP"
NOTES = f"""\
The AuthService is the nginx that is the upstream, too: it allows each request. Its CPU does not count. Envoy has
`ext_authz` with the same service. wrk -t1 -c{CONNECTIONS}."""
ASKING, ALONE, ENVOY_ASKING, ENVOY_ALONE = "canary-mw, asking", "canary-mw", "envoy, asking", "envoy"


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx or wrk.
    """
    section = Section("AUTH", TITLE, [NOTES])
    with servers.upstream(folder) as ports:
        asking = folder / "asking" / "rules.yaml"
        asking.parent.mkdir(exist_ok=True)
        document = (
            "---\napiVersion: getambassador.io/v3alpha1\nkind: AuthService\nmetadata: {name: auth}\n"
            f"spec: {{auth_service: '127.0.0.1:{ports.stable}', proto: http, timeout_ms: 5000}}\n"
        )
        asking.write_text(rules.text(MAPPINGS) + document, encoding="utf-8")
        starters: dict[str, Starter] = {
            ALONE: servers.canary_mw(folder, ports, MAPPINGS),
            ASKING: servers.canary_mw(folder, ports, MAPPINGS, path=asking),
            ENVOY_ALONE: peers.envoy(folder, ports, MAPPINGS),
            ENVOY_ASKING: peers.envoy(folder, ports, MAPPINGS, asks=ports.stable),
        }
        samples = side_by_side(section, starters, script(folder, MAPPINGS // 2, gray=True), options)
    section.figure("CPU per request added by the AuthService", cpu_added(samples, ASKING, ALONE), "us")
    section.figure("the same in Envoy", cpu_added(samples, ENVOY_ASKING, ENVOY_ALONE), "us")
    return section
