"""Patches of client libraries, so that the requests of an app tell of its lanes."""

import logging
from collections.abc import Callable, Iterable
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from canary_mw.exceptions import ConfigError
from canary_mw.host import HostLogger, speak
from canary_mw.http.headers import is_header_name
from canary_mw.propagate.hosts import told

# The module of a client library here, by its name; those in CLIENTS are patched where they are installed.
_MODULES = {"httpx": "httpx", "urllib3": "urllib3", "aiohttp": "aiohttp", "http.client": "http_client"}
CLIENTS = ("httpx", "urllib3", "aiohttp")


class _Patch(NamedTuple):
    """A method that is replaced."""

    owner: type
    name: str
    original: Callable[..., Any]
    patched: Callable[..., Any]


logger = HostLogger(logging.getLogger("canary_mw.propagate"))
_patches: dict[str, list[_Patch]] = {}


def install(hosts: Iterable[str] = (), *, clients: Iterable[str] | None = None, headers: Iterable[str] = ()) -> None:
    """Tell some hosts of the lanes of the present request, in the requests that the app makes of them.

    Nobody else is told, also where one of these hosts redirects to another one. What is called again adds to what was
    called before. The hosts of releases (`propagate.hosts`) and of `CANARY_MW_PROPAGATE_HOSTS` count, too.

    Args:
        hosts: names, `*.SUFFIX`, `NAME:PORT`, addresses and networks; without a port any port.
        clients: the libraries that are patched, of httpx, urllib3 (requests and botocore stand on it), aiohttp (3.12 or
            later) and http.client (urllib.request); by default those of the first three that are installed. Empty for
            none: then `PropagatingTransport` and its likes tell the hosts.
        headers: further headers of requests that are carried on as they come, as `x-mse-tag`.

    Raises:
        ConfigError: a host, a header or a library is none.
    """
    if isinstance(hosts, str):
        hosts = (hosts,)
    names = [name.lower() for name in headers]
    for name in names:
        if not is_header_name(name):
            raise ConfigError(f"propagate.install: {name!r} is not the name of a header")
    wanted = [name for name in CLIENTS if find_spec(name)] if clients is None else list(clients)
    for name in wanted:
        if name not in _MODULES:
            raise ConfigError(f"propagate.install: no client {name!r}", hint=f"one of {', '.join(_MODULES)}")
    told.add(hosts, named="propagate.install")
    told.read_environ()
    told.carry_on(name.encode() for name in names)
    told.on = True
    speak()
    for name in wanted:
        try:
            _install_client(name)
        except ConfigError as exc:
            if clients is not None:
                raise
            # It may be there for another library, and never used.
            logger.warning("%s; its requests tell nobody", exc)


def uninstall() -> None:
    """Undo `install`: its hosts are forgotten, and the client libraries as they were."""
    told.forget()
    while _patches:
        for patch in _patches.popitem()[1]:
            # Somebody may have patched it since. Then ours stays below, and does nothing.
            if patch.owner.__dict__.get(patch.name) is patch.patched:
                setattr(patch.owner, patch.name, patch.original)


def _install_client(name: str) -> None:
    if name in _patches:
        return
    module = import_module(f"canary_mw.propagate.{_MODULES[name]}")
    _patches[name] = [_patch(name, *each) for each in module.patches()]


def _patch(client: str, owner: type, name: str, wrapping: Callable[[Callable[..., Any]], Callable[..., Any]]) -> _Patch:
    original = owner.__dict__[name]

    def bound(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Wrappers of other libraries tell by this whose method it is.
        return original.__get__(self, type(self))(*args, **kwargs)

    inner = wrapping(bound)

    @wraps(original)
    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        return (inner if client in _patches else bound)(self, *args, **kwargs)

    setattr(owner, name, patched)
    return _Patch(owner, name, original, patched)
