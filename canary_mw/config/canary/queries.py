"""Metrics with a `provider` -> `Query`: what a metrics system is asked about a release."""

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from canary_mw.config.canary.fields import FieldError, shown
from canary_mw.config.canary.plan_schema import MetricModel, PrometheusModel
from canary_mw.config.canary.quantities import duration, number
from canary_mw.rules.plan import MetricKind
from canary_mw.rules.queries.condition import check
from canary_mw.rules.queries.query import NAMES, Query, unknown_names
from canary_mw.rules.wording import quoted

MOST_QUERIES = 16
_MOST_TIMEOUT = 60.0
_LEAST_INTERVAL = 1.0
_MOST_LIMIT = 1_000_000
# Of a query, and of the address of a server.
_MOST_CHARACTERS = 8_192
_OF_QUERIES = ("interval", "successCondition", "failureCondition", "failureLimit")
BUILT_IN: tuple[MetricKind, ...] = ("error_rate", "latency")
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_FIELDS = frozenset(("name", "provider", "on_failure", *_OF_QUERIES))


def is_query(model: MetricModel) -> bool:
    """Whether a metric comes from outside."""
    return model.provider is not None


def check_without_provider(model: MetricModel, path: str) -> None:
    """Refuse the fields of a query where there is none."""
    for name in _OF_QUERIES:
        if name in model.model_fields_set:
            text = f"{shown(path)}: {name} is one of a metric with a provider"
            raise FieldError("bad-value", f"{path}.{name}", text, "leave it out, or write a provider")


def queries(models: Sequence[tuple[int, MetricModel]], path: str, before: Sequence[Query]) -> tuple[Query, ...]:
    """The queries of an analysis.

    Args:
        models: with their places among the metrics.
        before: those of the analysis so far; one of the same name is replaced.
    """
    found = {each.name: each for each in before}
    found.update((model.name, _query(model, f"{path}.{index}")) for index, model in models)
    if len(found) > MOST_QUERIES:
        text = f"{shown(path)}: {len(found)} metrics with a provider are more than {MOST_QUERIES}"
        raise FieldError("bad-value", path, text, "leave out what another query says, too")
    return tuple(found.values())


def _query(model: MetricModel, path: str) -> Query:
    if wrong := sorted(model.model_fields_set - _FIELDS):
        text = f"{shown(path)}: {wrong[0]} says nothing of a metric with a provider"
        raise FieldError("bad-value", f"{path}.{wrong[0]}", text, "leave it out")
    if not _NAME.fullmatch(model.name) or model.name in BUILT_IN:
        text = f"{shown(path)}: {quoted(model.name)} is no name of a metric with a provider"
        hint = f"use 1 to 64 letters, digits, _ . : - and not {' or '.join(BUILT_IN)}"
        raise FieldError("bad-value", path, text, hint)
    asked = model.provider.prometheus if model.provider is not None else None
    if asked is None:
        text = f"{shown(path)}: the provider of {quoted(model.name)} names no server"
        raise FieldError("bad-value", f"{path}.provider", text, "write provider: {prometheus: {address, query}}")
    if not (model.successCondition or model.failureCondition):
        text = f"{shown(path)}: nothing says which result of {quoted(model.name)} is good"
        raise FieldError("bad-value", path, text, "write successCondition: result[0] < 0.8, or failureCondition")
    limit = 0 if model.failureLimit is None else model.failureLimit
    if not 0 <= limit <= _MOST_LIMIT:
        text = f"{shown(path)}: failureLimit is {limit}"
        raise FieldError("bad-value", f"{path}.failureLimit", text, f"write a number from 0 to {_MOST_LIMIT}")
    return Query(
        name=model.name,
        address=_address(asked, f"{path}.provider.prometheus"),
        text=_text(asked, f"{path}.provider.prometheus"),
        success=_condition(model.successCondition, f"{path}.successCondition"),
        failure=_condition(model.failureCondition, f"{path}.failureCondition"),
        interval=60.0 if model.interval is None else _interval(model.interval, f"{path}.interval"),
        timeout=_timeout(asked, f"{path}.provider.prometheus.timeout"),
        failure_limit=limit,
        on_failure=model.on_failure,
    )


def _address(asked: PrometheusModel, path: str) -> str:
    try:
        parts = urlsplit(asked.address)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), 0
    plain = asked.address.isascii() and asked.address.isprintable() and " " not in asked.address
    is_server = plain and parts.scheme in ("http", "https") and parts.hostname and port != 0
    if not is_server or parts.query or parts.fragment or "@" in parts.netloc or len(asked.address) > _MOST_CHARACTERS:
        text = f"{shown(path)}: {quoted(asked.address)} is no address of a server"
        raise FieldError("bad-value", f"{path}.address", text, "write address: http://prometheus:9090")
    return asked.address.rstrip("/")


def _text(asked: PrometheusModel, path: str) -> str:
    if not asked.query.strip() or len(asked.query) > _MOST_CHARACTERS:
        text = f"{shown(path)}: query is empty, or longer than {_MOST_CHARACTERS} characters"
        raise FieldError("bad-value", f"{path}.query", text, "write what Prometheus is asked, in PromQL")
    if unknown := unknown_names(asked.query):
        text = f"{shown(path)}: {{{{{unknown[0]}}}}} stands for nothing"
        raise FieldError("bad-value", f"{path}.query", text, f"known are {', '.join(NAMES)}")
    return asked.query


def _condition(written: str | None, path: str) -> str:
    if written is not None:
        try:
            check(written)
        except ValueError as exc:
            text = f"{shown(path)} cannot be read: {exc}"
            raise FieldError("bad-value", path, text, "write a condition as result[0] < 0.8") from None
    return written or ""


def _interval(written: str | int | float, path: str) -> float:
    return number(duration(written, path), path, least=_LEAST_INTERVAL)


def _timeout(asked: PrometheusModel, path: str) -> float:
    seconds = duration(asked.timeout, path, above=0)
    if seconds > _MOST_TIMEOUT:
        text = f"{shown(path)} is {seconds:g} s"
        raise FieldError("bad-value", path, text, f"write at most {_MOST_TIMEOUT:g}s: no answer is no yes anyhow")
    return seconds
