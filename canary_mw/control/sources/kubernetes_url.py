"""`k8s://` addresses: which objects of which cluster hold the rules."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from canary_mw.config.document import API_SCHEME
from canary_mw.exceptions import ConfigError

SCHEME = API_SCHEME

_NAMESPACE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_KINDS = ("services", "ingresses", "mappings")
_OPTIONS = ("selector", "kinds", "kubeconfig", "context", "exec", "empty")
_SYNTAX = "k8s://[NAMESPACE[,NAMESPACE...]|*][?" + "&".join(f"{name}=..." for name in _OPTIONS) + "]"


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesURL:
    """A `k8s://` address.

    Attributes:
        namespaces: empty for that of this process; one empty name stands for all of them.
        kinds: plural names; those of all kinds where none is named.
        kinds_named: whether the address names the kinds, so that a missing right for one is an error.
        kubeconfig: path; "env" for `KUBECONFIG`, None for the service account of the pod.
        may_exec: whether a command of the kubeconfig may be run.
        keep_last: whether the last Mapping stays when all are deleted.
    """

    text: str
    namespaces: tuple[str, ...] = ()
    selector: str = ""
    kinds: tuple[str, ...] = _KINDS
    kinds_named: bool = False
    kubeconfig: str | None = None
    context: str = ""
    may_exec: bool = False
    keep_last: bool = False

    @classmethod
    def parse(cls, text: str) -> "KubernetesURL":
        """Read an address.

        Raises:
            ConfigError: it is none; the text says what is wrong.
        """
        place, _, query = text.removeprefix(SCHEME).partition("?")
        options = _options(text, query)
        for name, allowed in (("exec", "allow"), ("empty", "keep")):
            if options.get(name, allowed) != allowed:
                raise ConfigError(f"{text}: {name}={options[name]} is unknown", hint=f"use {name}={allowed}")
        kinds = _kinds(text, options["kinds"]) if "kinds" in options else _KINDS
        return cls(
            text=text,
            namespaces=_namespaces(text, unquote(place)),
            selector=options.get("selector", ""),
            kinds=kinds,
            kinds_named="kinds" in options,
            kubeconfig=options.get("kubeconfig"),
            context=options.get("context", ""),
            may_exec="exec" in options,
            keep_last="empty" in options,
        )


def is_kubernetes_url(text: str) -> bool:
    """Whether rules come from a cluster, and not from a file."""
    return text.startswith(SCHEME)


def split_rules(text: str, separator: str) -> list[str]:
    """The paths and addresses of a list as in PATH; the colon of `k8s://` is none of its separators."""
    found: list[str] = []
    for part in text.split(separator):
        if separator == ":" and found and found[-1].strip() == "k8s" and part.startswith("//"):
            found[-1] = f"{found[-1]}:{part}"
        else:
            found.append(part)
    return found


def in_list(text: str, separator: str) -> str:
    """A path or an address as an element of such a list."""
    if not is_kubernetes_url(text):
        return text
    return SCHEME + text.removeprefix(SCHEME).replace(separator, f"%{ord(separator):02X}")


def _options(text: str, query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if name not in _OPTIONS or not equals or not value:
            raise ConfigError(f"{text}: {part!r} is no option", hint=_SYNTAX)
        if name in options:
            raise ConfigError(f"{text}: {name} is named twice", hint="join values by commas")
        options[name] = unquote(value)
    return options


def _namespaces(text: str, place: str) -> tuple[str, ...]:
    if place == "*":
        return ("",)
    names = tuple(dict.fromkeys(name.strip() for name in place.split(","))) if place else ()
    for name in names:
        if not _NAMESPACE.fullmatch(name):
            raise ConfigError(f"{text}: {name!r} is no name of a namespace", hint=_SYNTAX)
    return names


def _kinds(text: str, names: str) -> tuple[str, ...]:
    kinds = tuple(dict.fromkeys(name.strip() for name in names.split(",")))
    for name in kinds:
        if name not in _KINDS:
            raise ConfigError(f"{text}: the kind {name!r} is not read", hint=f"use {', '.join(_KINDS)}")
    return kinds
