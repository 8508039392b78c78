"""The terms of `audience`: conditions on who sends a request."""

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

from canary_mw.config.canary.fields import FieldError
from canary_mw.config.wording import did_you_mean, in_words
from canary_mw.config.yaml.scalars import OddKey
from canary_mw.http.headers import is_header_name
from canary_mw.rules.release import Term
from canary_mw.rules.wording import quoted

_NAMED = ("user", "session", "header", "cookie", "query")
_TERMS = (*_NAMED, "predicate", "client_ip", "any", "all", "not")


def audience(written: dict[str, Any] | None) -> tuple[Term, ...]:
    """The terms of a release, all of which must hold."""
    return () if written is None else tuple(_terms(written, "audience"))


def _terms(written: Any, path: str) -> Iterator[Term]:
    """The terms of a map."""
    if not isinstance(written, dict) or not written:
        raise _wrong(path, f"must be a map of terms, not {in_words(written)}", "write user: {plan: pro}")
    for name, value in written.items():
        place = f"{path}.{name}"
        if name in _NAMED:
            yield from _named(name, value, place)
        elif name == "predicate":
            yield Term("predicate", predicate_name(value, place))
        elif name == "client_ip":
            yield Term("client_ip", networks=tuple(_networks(value, place)))
        elif name in ("any", "all"):
            yield Term(name, inner=tuple(_listed(value, place)))
        elif name == "not":
            yield Term("not", inner=tuple(_terms(value, place)))
        else:
            hint = did_you_mean(str(name), _TERMS) or f"known are {', '.join(_TERMS)}"
            raise _wrong(path, f"has an unknown term {name}", hint)


def _listed(written: Any, path: str) -> Iterator[Term]:
    if not isinstance(written, list) or not written:
        raise _wrong(path, f"must be a list of maps, not {in_words(written)}", "write [{user: {plan: pro}}]")
    for each in written:
        inner = tuple(_terms(each, path))
        yield inner[0] if len(inner) == 1 else Term("all", inner=inner)


def _named(kind: Any, written: Any, path: str) -> Iterator[Term]:
    if not isinstance(written, dict) or not written:
        raise _wrong(path, f"must be a map of names, not {in_words(written)}", f"write {kind}: {{NAME: VALUE}}")
    for name, value in written.items():
        if isinstance(name, OddKey) or not name or (kind == "header" and not is_header_name(name)):
            raise _wrong(path, f"has the name {quoted(str(name))}, which is none of a {kind}", "correct it")
        listed = value if isinstance(value, list) else [value]
        if not listed or not all(isinstance(each, str | int) and not isinstance(each, bool) for each in listed):
            hint = "put it in quotes" if isinstance(value, bool) else "write NAME: VALUE, or NAME: [VALUE, VALUE]"
            raise _wrong(f"{path}.{name}", f"must be a text, a number or a list of them, not {in_words(value)}", hint)
        values = frozenset(str(each).encode() for each in listed)
        yield Term(kind, name.lower() if kind == "header" else name, values)


def predicate_name(written: Any, path: str) -> str:
    """The name of a predicate, which the app registers."""
    if not isinstance(written, str) or not written:
        raise _wrong(path, f"must be the name of a predicate, not {in_words(written)}", "write a text")
    return written


def _networks(written: Any, path: str) -> Iterator[str]:
    listed = written if isinstance(written, list) else [written]
    if not listed:
        raise _wrong(path, "names no network", "write addresses and networks, as 10.0.0.0/8")
    for each in listed:
        try:
            yield str(ip_network(each if isinstance(each, str) else "", strict=False))
        except ValueError:
            hint = "write addresses and networks, as 10.0.0.0/8"
            raise _wrong(path, f"holds {in_words(each)}, which is no network", hint) from None


def _wrong(path: str, message: str, hint: str | None = None) -> FieldError:
    return FieldError("bad-value", path, f"{path} {message}", hint)
