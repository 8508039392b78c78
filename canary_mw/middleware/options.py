"""The arguments of a middleware, each with the setting that takes its place where it is not given."""

import os
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Dict
from typing import NamedTuple, TypeVar

from canary_mw.client.limits import Limits
from canary_mw.middleware.settings import MiddlewareSettings, variable

T = TypeVar("T")
# The settings of arguments that have other names.
_SETTINGS = {"trusted": "forwarded_allow_ips", "upstreams": "upstream", "limits": "max_connections"}


class Arguments(NamedTuple):
    """Arguments of `CanaryMiddleware`; None for those that are not given."""

    upstreams: Dict[str, str | Sequence[str]] | None
    trusted: Iterable[str] | None
    trusted_headers: Iterable[str] | None
    header_key_file: str | os.PathLike[str] | None
    secrets: str | os.PathLike[str] | None
    hop_id: str | None
    limits: Limits | None
    dns_interval: float | None
    replay_limit: int | None
    shadow_limit: int | None
    shadow_writes: bool | None
    strict: bool | None
    run_dir: str | os.PathLike[str] | None
    state: str | os.PathLike[str] | None
    admin_host: str | None
    admin_port: int | None
    admin_token_file: str | os.PathLike[str] | None
    filters: bool | None
    guard_unmapped: bool | None
    unguarded: Iterable[str] | None


class Options(NamedTuple):
    """What counts: arguments, or else settings."""

    upstreams: Dict[str, str | Sequence[str]]
    trusted: Iterable[str]
    trusted_headers: Iterable[str]
    header_key_file: str | os.PathLike[str] | None
    secrets: str | os.PathLike[str] | None
    hop_id: str | None
    limits: Limits
    dns_interval: float
    replay_limit: int
    shadow_limit: int
    shadow_writes: bool
    strict: bool
    run_dir: str | None
    state: str | None
    admin_host: str
    admin_port: int
    admin_token_file: str | os.PathLike[str] | None
    peers: str | None
    peer_token_file: str | None
    hook_hosts: tuple[str, ...]
    filters: bool
    guard_unmapped: bool
    unguarded: tuple[str, ...]


def options_of(given: Arguments, settings: MiddlewareSettings, local: Sequence[str] = ()) -> Options:
    """The arguments that are given, and the settings in place of the others.

    Args:
        local: the argument of that name, whose variable takes its place.
    """
    return Options(
        _first(given.upstreams, {**settings.upstreams}),
        _first(given.trusted, settings.forwarded_allow_ips),
        _first(given.trusted_headers, settings.trusted_headers),
        given.header_key_file or settings.header_key_file,
        given.secrets or settings.secrets,
        given.hop_id or settings.hop_id,
        _first(given.limits, Limits(max_connections=settings.max_connections)),
        _first(given.dns_interval, settings.dns_interval),
        _first(given.replay_limit, settings.replay_limit),
        _first(given.shadow_limit, settings.shadow_limit),
        _first(given.shadow_writes, settings.shadow_writes),
        _first(given.strict, settings.strict),
        os.fspath(given.run_dir) if given.run_dir else settings.run_dir,
        os.fspath(given.state) if given.state else settings.state,
        given.admin_host or settings.admin_host,
        _first(given.admin_port, settings.admin_port),
        given.admin_token_file or settings.admin_token_file,
        settings.peers or next(iter(settings.local or local), None),
        settings.peer_token_file,
        settings.hook_hosts,
        _first(given.filters, settings.filters),
        _first(given.guard_unmapped, settings.guard_unmapped),
        settings.unguarded if given.unguarded is None else tuple(given.unguarded),
    )


def unused_variables(given: Arguments, rules: object, environ: Dict[str, str]) -> list[str]:
    """What to say of variables whose argument is given.

    Args:
        rules: the argument of that name; one that says the same as its variable is not reported.
    """
    names = [name for name, value in given._asdict().items() if value is not None]
    if rules is not None and str(rules) != environ.get(variable("rules")):
        names.append("rules")
    found = [(variable(_SETTINGS.get(name, name)), name) for name in names]
    return [f"{name} has no effect: the argument {each}= is given" for name, each in found if environ.get(name)]


def _first(argument: T | None, setting: T) -> T:
    return setting if argument is None else argument
