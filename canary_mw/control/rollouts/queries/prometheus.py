"""Instant queries to Prometheus (https://prometheus.io/docs/prometheus/latest/querying/api/) and its answers."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from canary_mw.control.rollouts.hooks.requests import HookClient, NoAnswer
from canary_mw.rules.queries.query import Query

_PATH = "/api/v1/query"
_FORM = b"application/x-www-form-urlencoded"
_OK = 200


def values(client: HookClient, query: Query, text: str) -> list[float]:
    """The values of a query now, one for each series; raises NoAnswer.

    Args:
        text: of the query, with nothing left to fill in.
    """
    body = urlencode({"query": text}).encode()
    answer = client.ask(query.address + _PATH, body, query.timeout, _FORM)
    if answer.status != _OK:
        raise NoAnswer(f"it answers {answer.status}")
    try:
        return list(_values(json.loads(answer.body)))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise NoAnswer("its answer is not that of Prometheus") from None


def _values(answer: Any) -> Iterator[float]:
    if answer["status"] != "success":
        raise NoAnswer("it answers with an error")
    kind, result = answer["data"]["resultType"], answer["data"]["result"]
    if kind == "scalar":
        yield _number(result)
    elif kind == "vector":
        yield from (_number(series["value"]) for series in result)
    else:
        raise NoAnswer("its result is no number: the query has to give an instant vector, or a scalar")


def _number(sample: Any) -> float:
    """Of a sample: its time, and the value as a text."""
    _, text = sample
    if not isinstance(text, str):
        raise TypeError
    return float(text)
