"""The settings of the standalone proxy: those of a middleware, and those of its ports and its process."""

from dataclasses import InitVar, dataclass

from canary_mw.exceptions import ConfigError
from canary_mw.middleware.settings import MiddlewareSettings, Naming, setting, variable
from canary_mw.observability.logs.lines import FORMATS

# Whether a client needs a certificate, in the words of the module ssl.
CERT_REQS = ("none", "optional", "required")
LOG_LEVELS = ("critical", "error", "warning", "info", "debug")
_RANGES = (
    ("port", 0, 65535),
    ("workers", 1, 1024),
    ("keep_alive", 0, 86400),
    ("grace", 0, 86400),
)

__all__ = ["CERT_REQS", "LOG_LEVELS", "Settings", "variable"]


@dataclass(frozen=True, kw_only=True)
class Settings(MiddlewareSettings):
    """The settings of `canary-mw serve` and `canary_mw.proxy:create_app`; see `MiddlewareSettings`."""

    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8080, "Port to listen on.")
    workers: int = setting(1, "Processes; each follows the rules by itself.")
    log_level: str = setting("info", "Lowest level that is logged.")
    access_log: bool = setting(False, "One line per request, on stdout.")
    access_log_format: str = setting("json", "Format of those lines: json, or text.")
    # Longer than load balancers keep idle connections, usually 60 s, so that they never use one that is being closed.
    keep_alive: int = setting(75, "Seconds that the connection of an idle client is kept open.")
    fast_path: bool = setting(True, "Plain requests go past ASGI; 0 to rule that out as a cause.")
    grace: int = setting(30, "Seconds that running requests have at shutdown.")
    ssl_certfile: str | None = setting(None, "Certificate to listen with, in PEM: TLS on the port.")
    ssl_keyfile: str | None = setting(None, "Its key, if it is not in the same file.")
    ssl_ca_certs: str | None = setting(None, "Authorities whose clients are let in, in PEM.")
    ssl_cert_reqs: str = setting("none", "Whether clients have to show a certificate.")
    named: InitVar[Naming] = variable

    def __post_init__(self, named: Naming) -> None:
        super().__post_init__(named)
        self._check_ranges(_RANGES, named)
        if self.log_level not in LOG_LEVELS:
            text = f"{named('log_level')}: log level {self.log_level!r} is unknown"
            raise ConfigError(text, hint="use " + ", ".join(LOG_LEVELS))
        if self.access_log_format not in FORMATS:
            text = f"{named('access_log_format')} is {self.access_log_format!r}"
            raise ConfigError(text, hint="use " + " or ".join(FORMATS))
        self._check_tls(named)

    def _check_tls(self, named: Naming) -> None:
        if self.ssl_cert_reqs not in CERT_REQS:
            raise ConfigError(f"{named('ssl_cert_reqs')} is {self.ssl_cert_reqs!r}", hint="use " + ", ".join(CERT_REQS))
        if self.ssl_certfile is None and (self.ssl_keyfile or self.ssl_ca_certs or self.ssl_cert_reqs != "none"):
            raise ConfigError("there is no certificate to listen with", hint=f"set {named('ssl_certfile')}")
        if (self.ssl_ca_certs is None) != (self.ssl_cert_reqs == "none"):
            names = f"{named('ssl_ca_certs')} and {named('ssl_cert_reqs')}"
            raise ConfigError("clients cannot be verified by one half of the settings", hint=f"set both {names}")
