"""The settings of the standalone proxy: a field, an environment variable and a help text for the CLI each."""

import os
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field, fields
from typing import Any

from canary_mw.exceptions import ConfigError
from canary_mw.middleware.identity import local_names

PREFIX = "CANARY_MW_"
# Whether a client needs a certificate, in the words of the module ssl.
CERT_REQS = ("none", "optional", "required")
LOG_LEVELS = ("critical", "error", "warning", "info", "debug")
_TRUE = frozenset(("1", "true", "yes", "on"))
_FALSE = frozenset(("0", "false", "no", "off", ""))


def _setting(default: Any, text: str, separator: str = "", name: str = "") -> Any:
    return field(default=default, metadata={"help": text, "separator": separator, "name": name})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of `canary-mw serve` and `canary_mw.proxy:create_app`.

    Each field `x` is `CANARY_MW_X` in the environment (`hop_id` is `CANARY_MW_ID`). Lists are joined by commas, paths
    as in PATH.

    Raises:
        ConfigError: a value is out of its range, or two settings contradict each other.
    """

    rules: tuple[str, ...] = _setting((), "File or directory of rules.", os.pathsep)
    local: tuple[str, ...] = _setting((), "Name of the service behind this proxy: its Mappings are stable.", ",")
    upstream: tuple[str, ...] = _setting((), "NAME=URL: where a service is found; '*' stands for all others.", ",")
    host: str = _setting("127.0.0.1", "Address to listen on.")
    port: int = _setting(8080, "Port to listen on.")
    workers: int = _setting(1, "Processes; each follows the rules by itself.")
    admin_host: str = _setting("127.0.0.1", "Address of the admin port.")
    admin_port: int = _setting(0, "Port for health, rules and metrics; 0 for none.")
    strict: bool = _setting(False, "Do not start with rules that are not wholly right.")
    forwarded_allow_ips: tuple[str, ...] = _setting((), "Address, network or * whose X-Forwarded-* headers count.", ",")
    trusted_headers: tuple[str, ...] = _setting((), "Header that counts from those peers only, else is removed.", ",")
    header_key_file: str | None = _setting(None, "Keys, one a line: a trusted header counts only if it is signed.")
    hop_id: str | None = _setting(None, "Name of this deployment in the via header, against loops.", name="id")
    ambassador_id: str = _setting("default", "Take only Mappings for this id.")
    log_level: str = _setting("info", "Lowest level that is logged.")
    access_log: bool = _setting(False, "One JSON line per request, on stdout.")
    # Longer than load balancers keep idle connections, usually 60 s, so that they never use one that is being closed.
    keep_alive: int = _setting(75, "Seconds that the connection of an idle client is kept open.")
    grace: int = _setting(30, "Seconds that running requests have at shutdown.")
    dns_interval: int = _setting(5, "Seconds between two look-ups of the name of an upstream.")
    max_connections: int = _setting(1024, "Connections to each upstream, per process.")
    replay_limit: int = _setting(65536, "Bytes of a request body that are kept for retries and shadows.")
    shadow_limit: int = _setting(100, "Copies for shadows in flight, per process; more are skipped.")
    shadow_writes: bool = _setting(False, "Shadows get copies of writes too, not only of GET, HEAD and OPTIONS.")
    secrets: str | None = _setting(None, "Directory of the Secrets that TLSContexts name, a directory each.")
    ssl_certfile: str | None = _setting(None, "Certificate to listen with, in PEM: TLS on the port.")
    ssl_keyfile: str | None = _setting(None, "Its key, if it is not in the same file.")
    ssl_ca_certs: str | None = _setting(None, "Authorities whose clients are let in, in PEM.")
    ssl_cert_reqs: str = _setting("none", "Whether clients have to show a certificate.")

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{variable(name)} is {getattr(self, name)}, not in {low}..{high}")
        if self.log_level not in LOG_LEVELS:
            raise ConfigError(f"log level {self.log_level!r} is unknown", hint="use " + ", ".join(LOG_LEVELS))
        self._check_tls()
        _ = self.upstreams

    def _check_tls(self) -> None:
        if self.ssl_cert_reqs not in CERT_REQS:
            raise ConfigError(
                f"{variable('ssl_cert_reqs')} is {self.ssl_cert_reqs!r}", hint="use " + ", ".join(CERT_REQS)
            )
        if self.ssl_certfile is None and (self.ssl_keyfile or self.ssl_ca_certs or self.ssl_cert_reqs != "none"):
            raise ConfigError("there is no certificate to listen with", hint=f"set {variable('ssl_certfile')}")
        if (self.ssl_ca_certs is None) != (self.ssl_cert_reqs == "none"):
            names = f"{variable('ssl_ca_certs')} and {variable('ssl_cert_reqs')}"
            raise ConfigError("clients cannot be verified by one half of the settings", hint=f"set both {names}")

    @property
    def upstreams(self) -> dict[str, str | list[str]]:
        """`upstream` by name; several URLs of one name are used in turn."""
        found: dict[str, str | list[str]] = {}
        name = ""
        for text in (part for each in self.upstream for part in each.split(",")):
            more = name and text.strip().startswith(("http://", "https://"))
            name, sep, url = (name, "=", text) if more else text.partition("=")
            if not sep or not name.strip() or not url.strip():
                raise ConfigError(f"upstream {text!r} is not NAME=URL", hint="for example shop=http://127.0.0.1:9001")
            known = found.get(name.strip(), [])
            found[name.strip()] = [*known, url.strip()]
        return found

    @property
    def local_names(self) -> frozenset[str]:
        """`local` as the set that `RouteTable.build` takes."""
        return local_names(self.local, {})

    @classmethod
    def from_environ(cls, environ: Dict[str, str] | None = None) -> "Settings":
        """Read the environment; a setting that it does not name keeps its default.

        Raises:
            ConfigError: a value cannot be read; the message names its variable.
        """
        environ = os.environ if environ is None else environ
        given = {each.name: environ[variable(each.name)] for each in fields(cls) if variable(each.name) in environ}
        return cls(**{name: _parse(name, text) for name, text in given.items()})

    def to_environ(self) -> dict[str, str]:
        """The variables that `from_environ` reads back; this passes the settings to workers."""
        return {
            variable(each.name): _text(each.name, value)
            for each in fields(self)
            if (value := getattr(self, each.name)) is not None
        }


_FIELDS = {each.name: each for each in fields(Settings)}
_RANGES = (
    ("port", 0, 65535),
    ("admin_port", 0, 65535),
    ("workers", 1, 1024),
    ("keep_alive", 0, 86400),
    ("grace", 0, 86400),
    ("dns_interval", 1, 86400),
    ("max_connections", 1, 1_000_000),
    ("replay_limit", 0, 1 << 30),
    ("shadow_limit", 0, 1_000_000),
)


def variable(name: str) -> str:
    """The environment variable of a field."""
    return PREFIX + (_FIELDS[name].metadata["name"] or name).upper()


def _parse(name: str, text: str) -> Any:
    default, separator = _FIELDS[name].default, _FIELDS[name].metadata["separator"]
    text = text.strip()
    if separator:
        return tuple(part.strip() for part in text.split(separator) if part.strip())
    if isinstance(default, bool):
        if text.lower() not in _TRUE | _FALSE:
            raise ConfigError(f"{variable(name)} is {text!r}", hint="use 1 or 0")
        return text.lower() in _TRUE
    if isinstance(default, int):
        try:
            return int(text)
        except ValueError:
            raise ConfigError(f"{variable(name)} is {text!r}, not a number") from None
    return text or default


def _text(name: str, value: Any) -> str:
    if isinstance(value, tuple):
        return str(_FIELDS[name].metadata["separator"]).join(value)
    return str(int(value)) if isinstance(value, bool) else str(value)
