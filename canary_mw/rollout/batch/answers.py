"""The lines of `canary-mw evidence --batch`: counts in, evidence and verdicts out."""

from collections.abc import Sequence
from functools import partial
from math import log
from typing import Any

from canary_mw.exceptions import ConfigError
from canary_mw.inspection.batch import read_json
from canary_mw.rollout.batch.stream import follow, read_stream
from canary_mw.rollout.batch.transitions import transition
from canary_mw.rollout.batch.values import Fields, checked_count, checked_digest, checked_number
from canary_mw.rollout.findings import ERROR_RATE
from canary_mw.rollout.key_sample import FAILED_CAP, Entry, KeySample
from canary_mw.rollout.statistics import (
    SAMPLE_RATIO_ALPHA,
    SAMPLE_RATIO_STRENGTH,
    Arm,
    Direction,
    Epoch,
    SeenKeys,
    attribution,
    excess_upper,
    exposures_needed,
    hazard_bounds,
    ln_needed,
    log_mean_exp,
    nearest_rank,
    pooled_excess,
    sample_ratio,
    towards,
)
from canary_mw.rollout.verdict import BETA, MINIMUM_KEYS

_TINY = 1e-9
_ALPHA = 0.01
_SECONDS = 1e9
_LN_E = 1e9


def answer_line(number: int, line: bytes) -> dict[str, Any]:
    """The answer to a line; an object with "line" and "error" for one that cannot be read.

    Args:
        number: of the line, 1-based.
    """
    try:
        return answer(read_json(line))
    except ConfigError as exc:
        return {"line": number, "error": str(exc)}


def answer(message: Any) -> dict[str, Any]:
    """The answer to one question; raises ConfigError for one that cannot be read."""
    if not isinstance(message, dict):
        raise ConfigError("the line is no JSON object", hint='write {"kind": "attribution", "epochs": [...]}')
    kind = message.get("kind")
    if not isinstance(kind, str) or kind not in _ANSWERS:
        raise ConfigError(f"kind is {kind!r:.60}", hint=f"use one of {', '.join(_ANSWERS)}")
    return _ANSWERS[kind](Fields(message))


def _attribution(fields: Fields) -> dict[str, Any]:
    direction: Direction = "decrease" if _direction(fields) == "decrease" else "increase"
    epochs = [_epoch(each) for each in fields.objects("epochs")]
    ln_e = attribution(epochs, fields.number("tolerated", _TINY, 1e9, default=1.0), direction)
    failures = sum(each.gray for each in towards(epochs, direction))
    worse = ln_e >= ln_needed(_ALPHA) and failures >= ERROR_RATE.minimum_failures
    excess = pooled_excess(epochs, direction)
    if excess is None:
        return {"ln_e": ln_e, "roll_back_at_0.01": worse}
    return {"ln_e": ln_e, "roll_back_at_0.01": worse and excess >= ERROR_RATE.ignore_below, "excess": excess}


def _direction(fields: Fields) -> str:
    return fields.choice("direction", "increase", "decrease", default="increase")


def _epoch(fields: Fields) -> Epoch:
    exposures = fields.count("gray_exposures", 0), fields.count("stable_exposures", 0)
    return Epoch(fields.number("weight", 0, 1), fields.count("gray"), fields.count("stable"), *exposures)


def _combined(fields: Fields) -> dict[str, Any]:
    logs = fields.items("ln_e", partial(checked_number, low=-_LN_E, high=_LN_E))
    shares = fields.items("shares", partial(checked_number, low=_TINY, high=1e9), default=[1] * len(logs))
    if not logs or len(logs) != len(shares):
        raise ConfigError("ln_e and shares must be lists of one length, with one metric at least")
    needed = ln_needed(
        fields.number("alpha", _TINY, 1, default=_ALPHA),
        fields.count("gray_variants", 1, low=1),
        fields.count("alone_of", 1, low=1),
    )
    combined = log_mean_exp(logs, shares)
    verdict = "roll_back" if combined >= needed else "go_on"
    return {"ln_combined": combined, "ln_needed": needed, "verdict": verdict}


def _poisson_bounds(fields: Fields) -> dict[str, Any]:
    bounds = hazard_bounds(fields.count("events"), fields.number("beta", _TINY, 1 - _TINY))
    return {"upper": bounds.upper, "lower": bounds.lower}


def _promotion(fields: Fields) -> dict[str, Any]:
    gray = Arm(fields.count("gray_first_failures"), fields.count("gray_exposures"))
    stable = Arm(fields.count("stable_first_failures"), fields.count("stable_exposures"))
    weight, margin = fields.number("next_weight", 0, 1), fields.number("margin", 0, 1, default=ERROR_RATE.margin)
    beta = fields.number("beta", _TINY, 1 - _TINY, default=BETA)
    upper = excess_upper(gray, stable, beta)
    enough = fields.count("gray_keys") >= fields.count("minimum_keys", MINIMUM_KEYS)
    keeps = upper is not None and upper * weight <= margin
    needed = exposures_needed(gray, stable, weight, margin, beta)
    verdict = "step_up" if keeps and enough else "wait"
    return {"excess_upper": upper, "verdict": verdict, "gray_exposures_needed": needed}


def _sample_ratio(fields: Fields) -> dict[str, Any]:
    strength = fields.number("strength", _TINY, 1e9, default=SAMPLE_RATIO_STRENGTH)
    ln_e = sample_ratio([_seen(each) for each in fields.objects("epochs")], strength)
    return {"ln_e": ln_e, "hold_at_0.001": ln_e >= log(1 / SAMPLE_RATIO_ALPHA)}


def _seen(fields: Fields) -> SeenKeys:
    return SeenKeys(fields.number("weight", 0, 1), fields.count("gray_keys"), fields.count("stable_keys"))


def _thinning(fields: Fields) -> dict[str, Any]:
    sample = KeySample(fields.count("cap", FAILED_CAP, low=1))
    for digest in fields.items("keys", checked_digest):
        sample.add(digest, Entry(0, 0))
    return {"level": sample.level, "kept": len(sample), "estimate": sample.estimate}


def _threshold(fields: Fields) -> dict[str, Any]:
    values: Sequence[float] = fields.items("first_latencies", partial(checked_number, low=0, high=_SECONDS))
    if not values:
        raise ConfigError("first_latencies must hold one number at least")
    return {"threshold": nearest_rank(values, fields.number("quantile", _TINY, 1))}


def _streams(fields: Fields) -> dict[str, Any]:
    stream = read_stream(fields)
    alpha = fields.number("alpha", _TINY, 1, default=_ALPHA)
    minimum = fields.count("minimum_failures", ERROR_RATE.minimum_failures)
    return follow(stream, alpha, minimum, fields.items("after", checked_count, default=[]))


_ANSWERS = {
    "attribution": _attribution,
    "combined": _combined,
    "poisson_bounds": _poisson_bounds,
    "promotion": _promotion,
    "sample_ratio": _sample_ratio,
    "streams": _streams,
    "thinning": _thinning,
    "threshold": _threshold,
    "transitions": transition,
}
