"""The values of single fields of a GrayRelease: each function returns one, or raises `FieldError`."""

import re
from collections.abc import Sequence
from decimal import Decimal
from math import isfinite
from typing import Any

from canary_mw.config.canary.schema import ChoiceModel, CookieModel, FallbackModel, PropagateModel
from canary_mw.config.wording import in_words
from canary_mw.http.headers import (
    FORWARDED_HEADERS,
    FRAMING_HEADERS,
    HOP_BY_HOP_HEADERS,
    fold_underscores,
    is_header_name,
)
from canary_mw.http.host_list import check_host
from canary_mw.rules.release import (
    SLOTS,
    SLOTS_PER_PERCENT,
    AnonymousCookie,
    Choice,
    FailureKind,
    Fallback,
    FallbackBudget,
    KeyExpression,
    Propagate,
)
from canary_mw.rules.wording import quoted

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
SALT = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADER_HINT = "use letters, digits and hyphens"
# They say where an answer ends, or concern one connection, or would be taken from the app.
_NO_VARIANT_HEADERS = FRAMING_HEADERS | HOP_BY_HOP_HEADERS | {b"set-cookie"}
# Requests need them, from whomever they come, or every forwarded request gets its own.
_NO_LANE_HEADERS = (FRAMING_HEADERS | HOP_BY_HOP_HEADERS | FORWARDED_HEADERS).union(
    b"authorization baggage canary-mw-signature cookie expect host via x-request-id x-shadow".split()
)
_PERCENT_HINT = "write a percent from 0 to 100 with at most four decimals"
_NAMED_KEYS = ("header", "cookie", "query", "user", "session")
_KINDS: tuple[FailureKind, ...] = ("connect", "timeout", "reset", "overload")
_INDEX = re.compile(r"\.([0-9]+)(?=\.|$)")
_COOKIE_TEXT = re.compile(r"[\x21-\x3a\x3c-\x7e]+")


class FieldError(Exception):
    """A field has a wrong value.

    Args:
        attribute: path of the field, as "gray.v2".
    """

    def __init__(self, code: str, attribute: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code, self.attribute, self.message, self.hint = code, attribute, message, hint


def text(value: str, attribute: str, pattern: re.Pattern[str] = SALT) -> str:
    """A name or salt of the allowed characters."""
    if not pattern.fullmatch(value):
        first = ", the first one a letter or a digit" if pattern is NAME else ""
        hint = f"use 1 to {63 if pattern is NAME else 64} letters, digits, . _ -{first}"
        raise FieldError("bad-value", attribute, f"{attribute} {quoted(value)} is not a valid name", hint)
    return value


def shown(attribute: str) -> str:
    """The path of an attribute as it is written in messages: `steps[2].pause`."""
    return _INDEX.sub(r"[\1]", attribute)


def slots(percent: float, attribute: str) -> int:
    """The slots of a percent, exactly."""
    exact = Decimal(str(percent)) * SLOTS_PER_PERCENT if isfinite(percent) else Decimal(-1)
    if not 0 <= exact <= SLOTS or exact != int(exact):
        message = f"{shown(attribute)} is {percent}, which is no percent with at most four decimals"
        raise FieldError("release-weight-value", attribute, message, _PERCENT_HINT)
    return int(exact)


def keys(written: Any) -> tuple[KeyExpression, ...]:
    """The key expressions of `sticky`."""
    if written is None:
        return ()
    return tuple(_key(each) for each in (written if isinstance(written, list) else [written]))


def _key(written: Any) -> KeyExpression:
    if written == "client_ip":
        return KeyExpression("client_ip")
    kind, name = next(iter(written.items())) if isinstance(written, dict) and len(written) == 1 else (written, None)
    if kind == "jwt":
        text = "sticky: a JWT is not read, because anybody can write one that is not verified"
        raise FieldError("release-key", "sticky", text, "have the ingress verify it and pass a header, or use user:")
    if kind not in _NAMED_KEYS or not isinstance(name, str) or not name.strip():
        hint = "write one of header, cookie, query, user, session with a name, or client_ip: `- header: x-user-id`"
        raise FieldError("release-key", "sticky", f"sticky: {in_words(written)} is no key", hint)
    if kind == "header" and not is_header_name(name):
        raise FieldError("bad-value", "sticky", f"sticky: {quoted(name)} is not the name of a header", _HEADER_HINT)
    # The names of headers are compared in lower case.
    return KeyExpression(kind, name.lower() if kind == "header" else name)


def header_name(name: str, attribute: str) -> bytes:
    """The name of a header, in lower case."""
    if not is_header_name(name):
        raise FieldError(
            "bad-value", attribute, f"{attribute}: {quoted(name)} is not the name of a header", _HEADER_HINT
        )
    return name.lower().encode()


def response_header(name: str) -> bytes:
    """The value of `response_header`, where it is a name."""
    header = header_name(name, "response_header")
    if header in _NO_VARIANT_HEADERS:
        text = f"response_header: {header.decode()} cannot hold the variant, as answers need it for something else"
        raise FieldError("bad-value", "response_header", text, "write x-canary-variant, or a name of your own")
    return header


def choice(model: ChoiceModel) -> Choice:
    """The value of `choice`."""
    cookie, query = (None if name is None else name.encode() for name in (model.cookie, model.query))
    for name in ("cookie", "query"):
        if getattr(model, name) == "":
            raise FieldError("bad-value", f"choice.{name}", f"choice.{name} is empty", "write a name, or leave it out")
    return Choice(
        header=None if model.header is None else header_name(model.header, "choice.header"),
        cookie=cookie,
        query=query,
        always=_words(model.values.always),
        never=_words(model.values.never),
        trusted=model.trusted,
    )


def _words(values: Sequence[str]) -> frozenset[bytes]:
    return frozenset(value.encode() for value in values)


def cookie(model: CookieModel) -> AnonymousCookie:
    """The value of `cookie`."""
    if not is_header_name(model.name):
        raise FieldError(
            "bad-value", "cookie.name", f"cookie.name: {quoted(model.name)} is not the name of a cookie", _HEADER_HINT
        )
    for name in ("domain", "path"):
        value = getattr(model, name)
        if value is not None and not _COOKIE_TEXT.fullmatch(value):
            message = f"cookie.{name}: {quoted(value)} cannot stand in a cookie"
            raise FieldError("bad-value", f"cookie.{name}", message, "leave out blanks, semicolons and letters like é")
    if model.max_age <= 0:
        hint = "34560000 are 400 days"
        raise FieldError("bad-value", "cookie.max_age", "cookie.max_age must be a number of seconds above 0", hint)
    if model.consent == "":
        hint = "write a text, or leave it out"
        raise FieldError("bad-value", "cookie.consent", "cookie.consent must be the name of a predicate", hint)
    return AnonymousCookie(model.name, model.max_age, model.domain, model.path, model.same_site, model.consent)


def fallback(model: FallbackModel | None) -> Fallback | None:
    """The value of `fallback`."""
    if model is None:
        return None
    on = list(model.on) if model.on is not None else [*_KINDS, 502, 503, 504]
    for each in on:
        if each not in _KINDS and not (isinstance(each, int) and 100 <= each <= 599):
            hint = f"write a status, or one of {', '.join(_KINDS)}"
            raise FieldError("bad-value", "fallback.on", f"fallback.on: {in_words(each)} is no failure", hint)
    methods = model.methods if model.methods is not None else ["GET", "HEAD", "OPTIONS"]
    for path, value in (("gray_timeout_ms", model.gray_timeout_ms or 0), ("body", model.body)):
        if value < 0:
            raise FieldError("bad-value", f"fallback.{path}", f"fallback.{path} is below 0", "write 0 or more")
    return Fallback(
        kinds=frozenset(each for each in _KINDS if each in on),
        statuses=frozenset(each for each in on if isinstance(each, int)),
        gray_timeout_ms=model.gray_timeout_ms,
        methods=frozenset(methods),
        body=model.body,
        budget=_budget(model),
    )


def _budget(model: FallbackModel) -> FallbackBudget:
    percent, least, interval = model.budget.percent, model.budget.min, model.budget.interval
    if not 0 <= percent <= 100 or least < 0 or interval < 1:
        hint = "percent is 0 to 100, min 0 or more, interval 1 second or more"
        raise FieldError("bad-value", "fallback.budget", "fallback.budget has a number out of its range", hint)
    return FallbackBudget(percent, least, interval)


def propagate(model: PropagateModel) -> Propagate:
    """The value of `propagate`."""
    header = header_name(model.header, "propagate.header")
    if fold_underscores(header) in _NO_LANE_HEADERS:
        text = f"propagate.header: {header.decode()} cannot hold lanes, which are removed from the requests of clients"
        raise FieldError("bad-value", "propagate.header", text, "write x-canary-lane, or a name of your own")
    for host in model.hosts:
        try:
            check_host(host)
        except ValueError as exc:
            found, _, hint = str(exc).rpartition(": ")
            raise FieldError("bad-value", "propagate.hosts", f"propagate.hosts: {found}", hint) from None
    return Propagate(tuple(model.hosts), header, model.baggage, model.format)
