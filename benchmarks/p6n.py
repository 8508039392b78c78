"""P6N: what a request of a FastAPI app costs: alone, in the app with the middleware, behind us, nginx and Envoy."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from statistics import median

from . import peers, production, rules, servers
from .apps import LOG, RULES
from .bars import Bars
from .compare import Options, Samples, Starter, Target, cpu_ratios, in_turn, start, table
from .processes import free_port
from .report import Section
from .servers import Server, Upstream
from .wrk import CONNECTIONS, script

MAPPINGS = 10
LIMITS = {"bare": 0.78, "as in production": 0.85}
ALONE, OURS, BEHIND_US = "the app alone", "the app with the middleware", "behind canary-mw serve"
BEHIND_NGINX, BEHIND_ENVOY = "behind nginx", "behind Envoy"
# Of the users; the rest is the stable path.
SHARE = 1
TITLE = f"a request of a FastAPI app, {MAPPINGS} Mappings, stable path: with the middleware, and behind proxies"
NOTES = f"""\
The CPU of the proxy and of the app behind it are added up. The app has one route and answers a small JSON text, under
uvicorn. wrk -t1 -c{CONNECTIONS}. As in production: {production.HEADERS} headers, an access log in a file, and a release
that gives gray to {SHARE} % of the users (nginx: `split_clients`; Envoy: by weights); with canary-mw also figures."""

Front = Callable[[Path, Upstream], AbstractContextManager[Server]]


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx or wrk.
    """
    section = Section("P6N", TITLE, [NOTES])
    found: dict[str, Samples] = {}
    with ExitStack() as stack:
        ports = stack.enter_context(servers.upstream(folder))
        started = {form: start(stack, _starters(form, folder, ports), section) for form in LIMITS}
        bare, full = script(folder, MAPPINGS // 2, gray=False), production.lua(folder, MAPPINGS)
        targets = [
            Target(f"{name}, {form}", server, bare if form == "bare" else full)
            for form, each in started.items()
            for name, server in each.items()
        ]
        samples = in_turn(targets, options)
    section.table = table(samples)
    for form in LIMITS:
        found[form] = {name: samples[f"{name}, {form}"] for name in started[form]}
        _judge(section, form, found[form])
    section.charts.append(_chart(found))
    return section


def _judge(section: Section, form: str, samples: Samples) -> None:
    ratios = cpu_ratios(samples, OURS, BEHIND_NGINX)
    section.at_most(f"CPU per request over that of app and nginx, {form}", ratios, LIMITS[form], "x", 2)
    for name in (OURS, BEHIND_NGINX):
        added = [one.p50 - alone.p50 for one, alone in zip(samples.get(name, ()), samples.get(ALONE, ()), strict=False)]
        section.figure(f"p50 over that of the app alone, {name}, {form}", added, "ms", 2)


def _chart(found: dict[str, Samples]) -> Bars:
    bars = {
        form: {name: median(r.cpu for r in rounds) for name, rounds in each.items()} for form, each in found.items()
    }
    return Bars("cost-of-a-request", "What a request costs", "CPU of all processes together, us/request", bars)


def _starters(form: str, folder: Path, ports: Upstream) -> dict[str, Starter]:
    full = form != "bare"
    app, environ = "wrapped_fastapi_app", {RULES: str(servers.rules_file(folder, MAPPINGS))}
    if full:
        path = folder / "p6n" / "rules.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(rules.production(MAPPINGS, SHARE), encoding="utf-8")
        # The upstream of gray has no name that can be looked up.
        environ = {RULES: str(path), LOG: str(folder / "p6n-access.log"), "CANARY_MW_ADMIN_PORT": str(free_port())}
        environ["CANARY_MW_UPSTREAM"] = f"gray=http://127.0.0.1:{ports.gray}"
        app = "production_fastapi_app"
    options = [f"--admin-port={free_port()}", "--access-log"] if full else []

    def ours(folder: Path, ports: Upstream) -> AbstractContextManager[Server]:
        return servers.canary_mw(folder, ports, MAPPINGS, path=environ[RULES], options=options, checked=False)

    def nginx(folder: Path, ports: Upstream) -> AbstractContextManager[Server]:
        return peers.nginx(folder, ports, MAPPINGS, production=full, share=SHARE)

    def envoy(folder: Path, ports: Upstream) -> AbstractContextManager[Server]:
        return peers.envoy(folder, ports, MAPPINGS, production=full)

    fronts: dict[str, Front] = {BEHIND_US: ours, BEHIND_NGINX: nginx, BEHIND_ENVOY: envoy}
    behind = {name: _behind(front, folder, ports) for name, front in fronts.items()}
    return {ALONE: servers.asgi("fastapi_app", folder), OURS: servers.asgi(app, folder, environ), **behind}


@contextmanager
def _behind(front: Front, folder: Path, ports: Upstream) -> Iterator[Server]:
    with servers.asgi("fastapi_app", folder) as app, front(folder, Upstream(app.port, ports.gray)) as proxy:
        yield Server((*proxy.pids, *app.pids), proxy.port)
