"""`analysis` of a GrayRelease -> `Analysis`: which metrics are judged, and how."""

import re
from collections.abc import Sequence
from typing import Any

from canary_mw.config.canary.fields import FieldError, shown
from canary_mw.config.canary.plan_schema import METRIC_KINDS, AnalysisModel, MetricModel
from canary_mw.config.canary.quantities import duration, number, rate
from canary_mw.config.canary.queries import BUILT_IN, check_without_provider, is_query, queries
from canary_mw.config.wording import did_you_mean
from canary_mw.rules.plan import NO_ALLOWANCE, Allowance, Analysis, MetricKind, MetricRule
from canary_mw.rules.queries.query import Query
from canary_mw.rules.wording import quoted

MOST_ALPHA = 10
# Slow answers and large values are more frequent than failures, and cost a user less.
_WIDE_MARGIN = 0.02
_QUANTILES: dict[MetricKind, tuple[str, ...]] = {"latency": ("p95", "p99"), "value": ("p50", "p90")}
_QUANTILE = re.compile(r"p([0-9]{1,2}(?:\.[0-9]{1,4})?)")
# The names that `canary_mw.record` takes.
_EVENT = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_RECORDED: tuple[MetricKind, ...] = ("event", "value")
# Fields that say nothing for other kinds.
_FIELDS: dict[str, tuple[MetricKind, ...]] = {
    "threshold": ("latency", "value"),
    "quantiles": ("latency", "value"),
    "allow": ("latency",),
}
# Gray is one hop further away than an app in the middleware, and a service with few requests answers each more slowly
# than a busy one: its connections and caches are cold, and its process has to be woken up.
_HOP = Allowance(seconds=0.01)


def analysis(model: AnalysisModel, path: str = "analysis", before: Analysis | None = None) -> Analysis:
    """The value of `analysis`, or of one among the steps.

    Args:
        before: what holds so far. Fields that are not written stay; metrics are added, or replaced by name.
    """
    read: dict[str, Any] = {}
    if before is None or "alpha" in model.model_fields_set:
        read["alpha"] = rate(model.alpha, f"{path}.alpha", most=MOST_ALPHA)
    if before is None or "margin" in model.model_fields_set:
        read["margin"] = rate(model.margin, f"{path}.margin")
    if before is None or "minimum_keys" in model.model_fields_set:
        read["minimum_keys"] = int(number(model.minimum_keys, f"{path}.minimum_keys", least=1))
    if before is None or "timeout" in model.model_fields_set:
        read["timeout"] = duration(model.timeout, f"{path}.timeout", above=0)
    read |= {name: getattr(model, name) for name in ("mode", "on_timeout") if name in model.model_fields_set}
    if before is not None and read.get("alpha", 0) > before.alpha:
        text = f"{shown(path)}.alpha is more than before: the budget of a release is spent once"
        raise FieldError("bad-value", f"{path}.alpha", text, "write the larger one at the top, in analysis")
    margin = read.get("margin", before.margin if before else 0.0)
    metrics = _metrics(model.metrics, f"{path}.metrics", margin, before)
    written = [(index, each) for index, each in enumerate(model.metrics or ()) if is_query(each)]
    asked = queries(written, f"{path}.metrics", before.queries if before is not None else ())
    _check_names(model.metrics or (), metrics, asked, f"{path}.metrics")
    return (before or Analysis(metrics))._replace(**read, metrics=metrics, queries=asked)


def _check_names(
    models: Sequence[MetricModel], metrics: Sequence[MetricRule], asked: Sequence[Query], path: str
) -> None:
    """Refuse a name that stands for two metrics."""
    names = [each.name for each in models]
    both = {each.name for each in metrics} & {each.name for each in asked}
    for index, name in enumerate(names):
        if name in both or name in names[:index]:
            text = f"{shown(path)}[{index}]: {name} is there twice"
            raise FieldError("bad-value", f"{path}.{index}", text, "write each metric once")


def _metrics(
    models: Sequence[MetricModel] | None, path: str, margin: float, before: Analysis | None
) -> tuple[MetricRule, ...]:
    if models is None:
        if before is not None:
            return before.metrics
        models = [MetricModel(name=name) for name in BUILT_IN]
    if not models:
        raise FieldError("bad-value", path, f"{shown(path)} is empty", "leave it out for error_rate and latency")
    own = [(index, each) for index, each in enumerate(models) if not is_query(each)]
    if not own and before is None:
        # A query is judged besides, and never alone.
        own = list(enumerate(MetricModel(name=name) for name in BUILT_IN))
    found = {each.name: _metric(each, f"{path}.{index}", margin) for index, each in own}
    kept = {each.name: each for each in before.metrics} if before is not None else {}
    return tuple((kept | found).values())


def _metric(model: MetricModel, path: str, margin: float) -> MetricRule:
    kind = _kind(model, path)
    check_without_provider(model, path)
    _check_fields(model, kind, path)
    own = None if model.margin is None else rate(model.margin, f"{path}.margin")
    default = max(margin, _WIDE_MARGIN) if kind in _QUANTILES else margin
    is_quantile = kind in _QUANTILES and model.threshold is None
    is_hop = kind == "latency" and is_quantile and model.allow is None
    return MetricRule(
        name=model.name,
        kind=kind,
        direction=model.direction or "increase",
        share=number(model.share, f"{path}.share", least=0, above=True),
        on_failure=model.on_failure,
        threshold=None if model.threshold is None else _threshold(model.threshold, kind, f"{path}.threshold"),
        quantiles=_quantiles(model.quantiles, kind, f"{path}.quantiles") if is_quantile else (),
        allow=_HOP if is_hop else _allowance(model.allow, f"{path}.allow"),
        margin=default if own is None else own,
        tolerated=number(model.tolerated, f"{path}.tolerated", least=1),
        minimum_failures=int(number(model.minimum_failures, f"{path}.minimum_failures", least=1)),
        ignore_below=rate(model.ignore_below, f"{path}.ignore_below", with_zero=True),
    )


def _kind(model: MetricModel, path: str) -> MetricKind:
    if model.kind is not None and model.kind not in METRIC_KINDS:
        hint = did_you_mean(model.kind, METRIC_KINDS) or f"known are {', '.join(METRIC_KINDS)}"
        raise FieldError("bad-value", path, f"{shown(path)}: there is no kind {quoted(model.kind)}", hint)
    if model.name in BUILT_IN:
        if model.kind not in (None, model.name):
            text = f"{shown(path)}: {model.name} is measured by the proxy, and is no {model.kind}"
            raise FieldError("bad-value", path, text, "leave kind out, or give the event another name")
        return "error_rate" if model.name == "error_rate" else "latency"
    if model.kind not in ("event", "value"):
        known = "known are error_rate and latency; write kind: event, or kind: value, for what the app records"
        hint = did_you_mean(model.name, BUILT_IN) or known
        raise FieldError("bad-value", path, f"{shown(path)}: there is no metric {quoted(model.name)}", hint)
    if not _EVENT.fullmatch(model.name):
        hint = "use 1 to 64 letters, digits, _ . : -"
        raise FieldError(
            "bad-value", path, f"{shown(path)}: {quoted(model.name)} is no name of an event or a value", hint
        )
    return "event" if model.kind == "event" else "value"


def _check_fields(model: MetricModel, kind: MetricKind, path: str) -> None:
    """Refuse fields that say nothing for this kind of metric."""
    for name, kinds in _FIELDS.items():
        if getattr(model, name) is not None and kind not in kinds:
            whose = " and ".join("latency" if each == "latency" else f"kind: {each}" for each in kinds)
            raise FieldError("bad-value", path, f"{shown(path)}: {name} is one of {whose} alone", "leave it out")
    if kind not in _RECORDED and model.direction == "decrease":
        text = f"{shown(path)}: less of {model.name} is no failure"
        raise FieldError("bad-value", path, text, "leave direction out")
    if model.threshold is not None and model.quantiles is not None:
        text = f"{shown(path)}: threshold and quantiles both say what is counted"
        raise FieldError("bad-value", path, text, "write one of them")


def _threshold(written: str | int | float, kind: MetricKind, path: str) -> float:
    """Seconds of latency, else a value."""
    if kind == "latency":
        return duration(written, path, above=0)
    if isinstance(written, str):
        text = f"{shown(path)}: {quoted(written)} is no number"
        raise FieldError("bad-value", path, text, "write a number, as the app records them")
    return float(number(written, path, least=0))


def _quantiles(written: Sequence[str] | None, kind: MetricKind, path: str) -> tuple[float, ...]:
    texts = _QUANTILES[kind] if written is None else written
    found = [_QUANTILE.fullmatch(each) for each in texts]
    values = tuple(float(each[1]) / 100 for each in found if each)
    if len(values) != len(texts) or not values or len({*values}) != len(values) or not all(values):
        raise FieldError("bad-value", path, f"{shown(path)} must be different quantiles, as p95", "write [p95, p99]")
    return values


def _allowance(written: str | int | float | None, path: str) -> Allowance:
    if written is None:
        return NO_ALLOWANCE
    if isinstance(written, str) and written.endswith("%"):
        return Allowance(ratio=rate(written, path, with_zero=True))
    return Allowance(seconds=duration(written, path))
