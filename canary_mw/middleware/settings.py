"""The settings of a middleware: a field, an environment variable and a help text each.

`server.settings` adds those of the standalone proxy. An argument of a middleware takes the place of its variable,
except for `local`: the gray Deployment usually runs the same code.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Mapping as Dict
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field, fields
from typing import Any, Self

from canary_mw.config.variables import ENV_NAMES
from canary_mw.config.wording import did_you_mean
from canary_mw.control.endpoints import parse_endpoints_url
from canary_mw.control.rollouts.settings import SINGLE, check_state
from canary_mw.control.sources.kubernetes_url import in_list, split_rules
from canary_mw.exceptions import ConfigError
from canary_mw.forwarding.filters.guarding import paths_of
from canary_mw.middleware.identity import local_names, via_token
from canary_mw.middleware.trust import trusted_headers, trusted_peers
from canary_mw.propagate.hosts import VARIABLE as PROPAGATE_HOSTS
from canary_mw.rules.filters.auth import PROBES
from canary_mw.upstreams.overrides import parse_origins

PREFIX = "CANARY_MW_"
# Whether middlewares have any effect; the standalone proxy does not read it.
ENABLED = "CANARY_MW_ENABLED"
# Variables that are no setting: they are read where they count.
_OTHER_VARIABLES = (ENABLED, ENV_NAMES, "CANARY_MW_PLAIN_SOCKETS", "CANARY_MW_ADMIN", SINGLE, PROPAGATE_HOSTS)
# Settings of `canary-mw serve` alone; `server.settings` has them.
SERVER_SETTINGS = (
    "access_log access_log_format fast_path grace host keep_alive log_level port ssl_ca_certs ssl_cert_reqs"
    " ssl_certfile ssl_keyfile workers"
).split()
# What Kubernetes puts into the containers of a namespace that has a Service named canary-mw, or canary-mw-something.
_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)$")
_TRUE = frozenset(("1", "true", "yes", "on"))
_FALSE = frozenset(("0", "false", "no", "off", ""))

_UNGUARDED = tuple(path.decode() for path in PROBES)

Naming = Callable[[str], str]
Ranges = Iterable[tuple[str, int, int]]


def setting(default: Any, text: str, separator: str = "") -> Any:
    """A field of settings.

    Args:
        text: the help text of its option.
        separator: joins the values of a list in the variable.
    """
    return field(default=default, metadata={"help": text, "separator": separator})


def variable(name: str) -> str:
    """The environment variable of a field."""
    return PREFIX + ("id" if name == "hop_id" else name).upper()


_RANGES = (
    ("admin_port", 0, 65535),
    ("cache_max_age", 1, 100 * 86400),
    ("dns_interval", 1, 86400),
    ("max_connections", 1, 1_000_000),
    ("replay_limit", 0, 1 << 30),
    ("shadow_limit", 0, 1_000_000),
)


@dataclass(frozen=True, kw_only=True)
class MiddlewareSettings:
    """The settings that count in a middleware, and in `canary-mw serve`.

    Each field `x` is `CANARY_MW_X` in the environment (`hop_id` is `CANARY_MW_ID`). Lists are joined by commas, paths
    as in PATH.

    Args:
        named: what errors call a field; by default its variable.

    Raises:
        ConfigError: a value is out of its range, or two settings contradict each other.
    """

    rules: tuple[str, ...] = setting((), "File or directory of rules, or k8s:// address.", os.pathsep)
    local: tuple[str, ...] = setting((), "Name of the service behind this proxy: its Mappings are stable.", ",")
    upstream: tuple[str, ...] = setting((), "NAME=URL: where a service is found; '*' stands for all others.", ",")
    strict: bool = setting(False, "Do not start with rules that are not wholly right.")
    forwarded_allow_ips: tuple[str, ...] = setting((), "Address, network or * whose X-Forwarded-* headers count.", ",")
    trusted_headers: tuple[str, ...] = setting((), "Header that counts from those peers only, else is removed.", ",")
    header_key_file: str | None = setting(None, "Keys, one a line: a trusted header counts only if it is signed.")
    hop_id: str | None = setting(None, "Name of this deployment in the via header, against loops.")
    ambassador_id: str = setting("default", "Take only Mappings for this id.")
    dns_interval: int = setting(5, "Seconds between two look-ups of the name of an upstream.")
    max_connections: int = setting(1024, "Connections to each upstream, per process.")
    replay_limit: int = setting(65536, "Bytes of a request body that are kept for retries and shadows.")
    shadow_limit: int = setting(100, "Copies for shadows in flight, per process; more are skipped.")
    shadow_writes: bool = setting(False, "Shadows get copies of writes too, not only of GET, HEAD and OPTIONS.")
    cache: str | None = setting(None, "Directory where the last rules of a k8s:// address are kept.")
    cache_max_age: int = setting(86400, "Seconds after which such rules are too old to start with.")
    run_dir: str | None = setting(None, "Folder that the workers of one server share; none of another server.")
    state: str | None = setting(None, "Folder or k8s:// address where the states of releases with steps are kept.")
    endpoints: str | None = setting(None, "k8s:// address of the API that knows the endpoints of Services.")
    zone: str | None = setting(None, "Zone of this node: endpoints in it come first, where the cluster says so.")
    admin_host: str = setting("127.0.0.1", "Address of the admin port.")
    admin_port: int = setting(0, "Port for health, rules and metrics; 0 for none.")
    admin_host_names: tuple[str, ...] = setting((), "Name by which the admin port may be asked.", ",")
    admin_token_file: str | None = setting(None, "Lines SCOPE TOKEN: who may give commands on the admin port.")
    peers: str | None = setting(None, "Service of these pods, which share a release with steps; else the first local.")
    peer_token_file: str | None = setting(None, "Token by which pods know each other; else the line peer TOKEN.")
    hook_hosts: tuple[str, ...] = setting((), "Host of hooks that may lie on this machine or link.", ",")
    events: bool = setting(False, "Write Events about rules in error to their objects of a k8s:// address.")
    secrets: str | None = setting(None, "Directory of the Secrets that TLSContexts name, a directory each.")
    filters: bool = setting(True, "Ask the services of AuthService; 0 for an app behind a gateway that asks.")
    guard_unmapped: bool = setting(True, "An app's requests that no Mapping takes are asked about, too.")
    unguarded: tuple[str, ...] = setting(_UNGUARDED, "Path of an app that no AuthService is asked about.", ",")
    tracing: bool = setting(False, "Spans by OpenTelemetry, for each attempt at an upstream.")
    named: InitVar[Naming] = variable

    def __post_init__(self, named: Naming) -> None:
        self._check_ranges(_RANGES, named)
        upstreams = parse_upstreams(self.upstream, named("upstream"))
        with naming(named("upstream")):
            for name, urls in upstreams.items():
                parse_origins(name, urls)
        with naming(named("endpoints")):
            parse_endpoints_url(self.endpoints or "k8s://")
        with naming(named("state")):
            check_state(self.state)
        with naming(named("forwarded_allow_ips")):
            trusted_peers(self.forwarded_allow_ips)
        with naming(named("trusted_headers")):
            trusted_headers(self.trusted_headers, None)
        with naming(named("unguarded")):
            paths_of(self.unguarded)
        with naming(named("hop_id")):
            via_token(self.hop_id or "any")

    def _check_ranges(self, ranges: Ranges, named: Naming) -> None:
        for name, low, high in ranges:
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{named(name)} is {getattr(self, name)}, not in {low}..{high}")

    @property
    def upstreams(self) -> dict[str, str | list[str]]:
        """`upstream` by name; several URLs of one name are used in turn."""
        return parse_upstreams(self.upstream, variable("upstream"))

    @property
    def of_sources(self) -> dict[str, Any]:
        """The arguments of `source_of` that are settings."""
        return {"cache": self.cache, "cache_max_age": self.cache_max_age, "events": self.events}

    @property
    def local_names(self) -> frozenset[str]:
        """`local` as the set that `RouteTable.build` takes."""
        return local_names(self.local, {})

    @classmethod
    def from_environ(cls, environ: Dict[str, str] | None = None) -> Self:
        """Read the environment; a setting that it does not name keeps its default.

        Raises:
            ConfigError: a value cannot be read; the message names its variable.
        """
        return cls(**cls.read_environ(environ))

    @classmethod
    def read_environ(cls, environ: Dict[str, str] | None = None, without: Iterable[str] = ()) -> dict[str, Any]:
        """The values of the fields that the environment names, except for some; raises as `from_environ` does."""
        environ = os.environ if environ is None else environ
        names = [each.name for each in fields(cls) if variable(each.name) in environ and each.name not in without]
        # In the namespace of a Service named canary-mw-admin, Kubernetes puts its URL there.
        names = [name for name in names if name != "admin_port" or "://" not in environ[variable(name)]]
        return {name: cls._parse(name, environ[variable(name)]) for name in names}

    def to_environ(self) -> dict[str, str]:
        """The variables that `from_environ` reads back; this passes the settings to workers."""
        return {
            variable(each.name): _text(value, each.metadata["separator"])
            for each in fields(self)
            if (value := getattr(self, each.name)) is not None
        }

    @classmethod
    def _parse(cls, name: str, text: str) -> Any:
        found = next(each for each in fields(cls) if each.name == name)
        default, separator = found.default, found.metadata["separator"]
        text = text.strip()
        if separator:
            return tuple(part.strip() for part in split_rules(text, separator) if part.strip())
        if isinstance(default, bool):
            return _parse_bool(variable(name), text)
        if isinstance(default, int):
            try:
                return int(text)
            except ValueError:
                raise ConfigError(f"{variable(name)} is {text!r}, not a number") from None
        return text or default


def is_enabled(environ: Dict[str, str]) -> bool:
    """Whether middlewares read rules; raises ConfigError for a value that is neither yes nor no."""
    return _parse_bool(ENABLED, environ.get(ENABLED, "").strip() or "1")


def _parse_bool(name: str, text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise ConfigError(f"{name} is {text!r}", hint="use 1 or 0")
    return text.lower() in _TRUE


def _text(value: Any, separator: str) -> str:
    if isinstance(value, tuple):
        return separator.join(in_list(each, separator) for each in value)
    return str(int(value)) if isinstance(value, bool) else str(value)


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Put the name of a setting before the errors of its block."""
    try:
        yield
    except ConfigError as exc:
        raise ConfigError(f"{what}: {exc.message}", file=exc.file, line=exc.line, hint=exc.hint) from None


def parse_upstreams(texts: Iterable[str], setting_name: str) -> dict[str, str | list[str]]:
    """URLs by name, of texts `NAME=URL[,URL]`.

    Args:
        setting_name: what the error calls the setting.

    Raises:
        ConfigError: one is not NAME=URL.
    """
    found: dict[str, str | list[str]] = {}
    name = ""
    for text in (part for each in texts for part in each.split(",")):
        more = name and text.strip().startswith(("http://", "https://"))
        name, sep, url = (name, "=", text) if more else text.partition("=")
        if not sep or not name.strip() or not url.strip():
            hint = "for example shop=http://127.0.0.1:9001"
            raise ConfigError(f"{setting_name}: upstream {text!r} is not NAME=URL", hint=hint)
        known = found.get(name.strip(), [])
        found[name.strip()] = [*known, url.strip()]
    return found


def unknown_variables(environ: Dict[str, str]) -> list[str]:
    """What to say of the variables that begin as ours do and are none of them."""
    settings = [*(each.name for each in fields(MiddlewareSettings)), *SERVER_SETTINGS]
    known = [*map(variable, settings), *_OTHER_VARIABLES]
    unknown = [name for name in sorted(environ) if name.startswith(PREFIX) and name not in known]
    texts = []
    for name in unknown:
        if _SERVICE_LINK.search(name) or (name.endswith("_PORT") and "://" in environ[name]):
            continue
        hint = did_you_mean(name, known)
        texts.append(f"{name} is no variable of canary-mw, and has no effect" + (f" ({hint})" if hint else ""))
    return texts
