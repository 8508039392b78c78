"""What queries to a metrics system say about a release, besides its own evidence: no answer is never a yes."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from canary_mw.rules.plan import OnFailure
from canary_mw.rules.queries.condition import NoData, holds
from canary_mw.rules.queries.query import Query

Said = Literal["successful", "failed", "inconclusive", "unanswered"]
_SHOWN = 3


class Measurement(NamedTuple):
    """What one answer to a query says.

    Attributes:
        text: the values, or why there is no answer.
    """

    said: Said
    text: str


class QueryStanding(NamedTuple):
    """How a query stands in the present step.

    Attributes:
        last: None where it was not answered yet.
        failures: of this step.
    """

    query: Query
    last: Measurement | None = None
    failures: int = 0

    @property
    def failed(self) -> bool:
        """Whether it has failed too often."""
        return self.failures > self.query.failure_limit


class Objection(NamedTuple):
    """Why a query holds a release."""

    name: str
    reason: str


NO_OBJECTION = Objection("", "")


def measured(query: Query, values: Sequence[float]) -> Measurement:
    """What the values say, as Argo Rollouts judges a measurement; no data, or no number, say nothing."""
    try:
        failed = holds(query.failure, values) if query.failure else None
        succeeded = holds(query.success, values) if query.success else None
    except NoData as exc:
        return Measurement("unanswered", str(exc))
    except OverflowError:
        return Measurement("unanswered", "a value is too large")
    said: Said = "inconclusive"
    if failed or (failed is None and not succeeded):
        said = "failed"
    elif succeeded or (succeeded is None and failed is False):
        said = "successful"
    return Measurement(said, shown(values))


def shown(values: Sequence[float]) -> str:
    """The first values, in words."""
    text = ", ".join(f"{each:.6g}" for each in values[:_SHOWN])
    return text if len(values) <= _SHOWN else f"{text} and {len(values) - _SHOWN} more"


def failure_of(standings: Sequence[QueryStanding], on_failure: OnFailure) -> str:
    """Why a query takes the release back, "" if none does."""
    return next((_failure(each) for each in standings if each.failed and _leads_to(each, on_failure) == "rollback"), "")


def objection_of(standings: Sequence[QueryStanding], on_failure: OnFailure) -> Objection:
    """Why a query holds the release."""
    found = (each for each in standings if each.failed and _leads_to(each, on_failure) == "hold")
    return next((Objection(each.query.name, _failure(each)) for each in found), NO_OBJECTION)


def unanswered(queries: Sequence[Query], standings: Sequence[QueryStanding]) -> str:
    """Which query keeps from a raise, and why; "" where the last answer to each is a success."""
    known = {each.query: each for each in standings}
    return next((text for each in queries if (text := waiting_for(known.get(each, QueryStanding(each))))), "")


def in_words(standing: QueryStanding) -> str:
    """How a query stands, for people."""
    last = standing.last
    if last is None:
        return "not answered yet"
    words = {"successful": "succeeds", "failed": "fails", "unanswered": "no answer"}
    text = f"{words.get(last.said, 'neither succeeds nor fails')}: {last.text}"
    if not standing.failures:
        return text
    return f"{text}; failed {_times(standing.failures)} in this step, may {_times(standing.query.failure_limit)}"


def _times(count: int) -> str:
    return {0: "never", 1: "once"}.get(count, f"{count} times")


def _leads_to(standing: QueryStanding, on_failure: OnFailure) -> OnFailure:
    return standing.query.on_failure or on_failure


def _failure(standing: QueryStanding) -> str:
    limit = f", more than {standing.query.failure_limit}" if standing.query.failure_limit else ""
    values = f": {standing.last.text}" if standing.last is not None and standing.last.said == "failed" else ""
    return f"the query {standing.query.name} failed {_times(standing.failures)}{limit}{values}"


def waiting_for(standing: QueryStanding) -> str:
    """Why a query keeps from a raise, "" where its last answer is a success."""
    name, last = standing.query.name, standing.last
    if last is None:
        return f"the query {name} was not answered yet"
    if last.said == "unanswered":
        return f"the query {name} has no answer: {last.text}"
    if last.said == "failed":
        return f"the query {name} fails: {last.text}"
    return f"the query {name} is neither a success nor a failure: {last.text}" if last.said == "inconclusive" else ""
