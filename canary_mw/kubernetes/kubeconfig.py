"""A kubeconfig file -> Connection, as kubectl reads it."""

import base64
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from canary_mw.config.yaml.loader import DocumentRefused, load
from canary_mw.exceptions import ConfigError
from canary_mw.kubernetes.credentials import ClientCertificate, Connection, read_bytes, read_text
from canary_mw.kubernetes.exec_plugin import VERSIONS, ExecPlugin

Entry = dict[str, Any]

# How a user cannot log in here.
_REFUSED = ("auth-provider", "username", "password")


def from_kubeconfig(path: str, context: str = "", *, may_exec: bool = False) -> Connection:
    """The API server of a context, by default of the current one.

    Args:
        path: several paths are merged as in `KUBECONFIG`: the first one that names something counts.
        may_exec: whether a command of the file is run for credentials.

    Raises:
        ConfigError: the file cannot be read, or asks for what is not supported.
    """
    merged, context, chosen = _chosen(path, context)
    cluster = _named(merged["clusters"], _text(chosen, "cluster"), "cluster", path)
    user = _user(merged, chosen, path)
    return Connection(
        server=_server(cluster, path),
        namespace=_text(chosen, "namespace") or "default",
        context=context,
        ca=_ca(cluster),
        insecure=cluster.get("insecure-skip-tls-verify") is True,
        server_name=_text(cluster, "tls-server-name") or None,
        proxy=_proxy(cluster, path),
        **_identity(user, path, context, may_exec),
    )


def _chosen(path: str, context: str) -> tuple[Entry, str, Entry]:
    """The files as one, and the name and content of the context."""
    merged = _merge([_read(each) for each in path.split(os.pathsep) if each])
    context = context or merged["current-context"]
    if not context:
        raise ConfigError(f"{path} has no current-context", hint="name ?context=NAME")
    return merged, context, _named(merged["contexts"], context, "context", path)


def _user(merged: Entry, chosen: Entry, path: str) -> Entry:
    return _named(merged["users"], _text(chosen, "user"), "user", path) if chosen.get("user") else {}


def _read(path: str) -> Entry:
    try:
        loaded = load(read_text(path))
    except OSError as exc:
        raise ConfigError(f"the kubeconfig {path} cannot be read: {exc.strerror}") from exc
    except DocumentRefused as exc:
        raise ConfigError(f"the kubeconfig {path} is no YAML: {exc}", line=exc.diagnostic.line) from exc
    value = loaded[1] if loaded else None
    if not isinstance(value, dict):
        raise ConfigError(f"the kubeconfig {path} is no map")
    return {**value, "directory": os.path.dirname(os.path.abspath(path))}


def _merge(files: list[Entry]) -> Entry:
    merged: Entry = {"contexts": {}, "clusters": {}, "users": {}, "current-context": ""}
    for file in files:
        merged["current-context"] = merged["current-context"] or _text(file, "current-context")
        for kind in ("contexts", "clusters", "users"):
            for item in file.get(kind) or []:
                part = item.get(kind[:-1]) if isinstance(item, dict) else None
                if isinstance(part, dict):
                    merged[kind].setdefault(item.get("name"), {**part, "directory": file["directory"]})
    return merged


def _named(entries: dict[Any, Entry], name: str, what: str, path: str) -> Entry:
    if name not in entries:
        known = ", ".join(sorted(map(str, entries))) or "none"
        raise ConfigError(f"{path} has no {what} {name!r}", hint=f"there is: {known}")
    return entries[name]


def _text(entry: Entry, name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""


def _server(cluster: Entry, path: str) -> str:
    server = _text(cluster, "server")
    if not server.startswith(("https://", "http://")):
        raise ConfigError(f"{path}: the server {server!r} of the cluster is no URL")
    return server.rstrip("/")


def _proxy(cluster: Entry, path: str) -> str | None:
    proxy = _text(cluster, "proxy-url")
    if proxy and not proxy.startswith(("https://", "http://")):
        raise ConfigError(f"{path}: proxy-url {proxy!r} is no URL of an HTTP proxy")
    return proxy or None


def _file(entry: Entry, name: str) -> str:
    """The path of a file; a relative one is relative to the kubeconfig."""
    path = _text(entry, name)
    return os.path.join(entry["directory"], path) if path else ""


def _content(entry: Entry, name: str) -> Callable[[], bytes] | None:
    """What reads the content of `NAME-data`, or else of the file `NAME`."""
    data, path = _text(entry, f"{name}-data"), _file(entry, name)
    if data:
        try:
            decoded = base64.b64decode(data, validate=True)
        except ValueError as exc:
            raise ConfigError(f"{name}-data of the kubeconfig is no base64") from exc
        return lambda: decoded
    return (lambda: read_bytes(path)) if path else None


def _ca(cluster: Entry) -> Callable[[], str | None]:
    content = _content(cluster, "certificate-authority")
    return lambda: None if content is None else content().decode("ascii", "replace")


def _identity(user: Entry, path: str, context: str, may_exec: bool) -> Entry:
    """The arguments of `Connection` that say who this is."""
    for name in _REFUSED:
        if user.get(name):
            raise ConfigError(f"{path}: `{name}` is not supported", hint="use a token, a certificate or `exec`")
    if user.get("exec"):
        return _exec(user, path, may_exec)
    certificate, key = _content(user, "client-certificate"), _content(user, "client-key")
    identity: Entry = {}
    if certificate is not None and key is not None:
        identity["certificate"] = lambda: ClientCertificate(certificate(), key())
    elif certificate is not None or key is not None:
        raise ConfigError(f"{path}: client-certificate and client-key belong together")
    token, file = _text(user, "token"), _file(user, "tokenFile")
    if file:
        identity["token"] = lambda: read_text(file).strip()
    elif token:
        written = _WrittenToken(token, path, context)
        identity |= {"token": lambda: written.token, "renew": written.renew}
    return identity


class _WrittenToken:
    """A token that stands in the kubeconfig itself; read again when the server does not know it."""

    def __init__(self, token: str, path: str, context: str) -> None:
        self.token, self._path, self._context = token, path, context

    def renew(self) -> None:
        """Take what the file has now; one that cannot be read, or is half written, changes nothing."""
        with suppress(ConfigError, OSError):
            merged, _, chosen = _chosen(self._path, self._context)
            self.token = _text(_user(merged, chosen, self._path), "token") or self.token


def _exec(user: Entry, path: str, may_exec: bool) -> Entry:
    asked = user["exec"]
    if not isinstance(asked, dict) or _text(asked, "apiVersion") not in VERSIONS or not _text(asked, "command"):
        raise ConfigError(f"{path}: `exec` needs a command, and one of the versions {', '.join(VERSIONS)}")
    command = _text(asked, "command")
    if not may_exec:
        hint = "in `canary-mw serve` and on the command line add ?exec=allow; a middleware starts no process"
        raise ConfigError(f"{path} wants the command {command!r} to be run for credentials", hint=hint)
    if os.sep in command:
        command = os.path.join(user["directory"], command)
    extra = {_text(each, "name"): _text(each, "value") for each in asked.get("env") or [] if isinstance(each, dict)}
    arguments = [str(each) for each in asked.get("args") or []]
    plugin = ExecPlugin(command, arguments, asked["apiVersion"], extra)
    return {"token": plugin.token, "certificate": plugin.certificate, "renew": plugin.renew}
