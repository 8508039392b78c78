"""A query to Prometheus as a value, and what is put into its text."""

import re
from collections.abc import Mapping as Dict
from typing import Literal, NamedTuple

# Names in braces that stand for something of the release.
NAMES = ("release", "namespace", "revision", "attempt", "step", "weight")
_PLACE = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")


class Query(NamedTuple):
    """A query that is asked again and again while a release is under way.

    Attributes:
        address: the URL of the server, to which `/api/v1/query` is added.
        text: PromQL, with names in braces.
        success, failure: conditions on the result, "" for none; at least one is there.
        interval, timeout: seconds.
        failure_limit: more failures than this in one step are a failure of the release.
        on_failure: None for that of the plan.
    """

    name: str
    address: str
    text: str
    success: str = ""
    failure: str = ""
    interval: float = 60.0
    timeout: float = 10.0
    failure_limit: int = 0
    on_failure: Literal["rollback", "hold"] | None = None


def unknown_names(text: str) -> list[str]:
    """The names in braces that stand for nothing."""
    return [each for each in _PLACE.findall(text) if each not in NAMES]


def filled(text: str, values: Dict[str, str]) -> str:
    """The text with values in place of their names, as they stand in a string of PromQL."""
    return _PLACE.sub(lambda found: _escaped(values[found[1]]), text)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("'", "\\'").replace("\n", "\\n")
