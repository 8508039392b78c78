"""Decisions that need to know more of the sender than the request says: the user of the app, and its predicates."""

from collections.abc import Callable, Generator, Iterator
from typing import Any

from canary_mw.http.messages import RequestHead
from canary_mw.routing.decided import Decision
from canary_mw.routing.person import Person, Question
from canary_mw.routing.table import RouteTable
from canary_mw.rules.release import GrayRelease, Term

# Yields what has to be known, and is sent the answer; returns the decision and who sends the request, as far as known.
Deciding = Generator[Question, Any, tuple[Decision | None, Person]]


def deciding(
    decide: Callable[..., Decision | None], table: RouteTable, head: RequestHead, roll: float, person: Person
) -> Deciding:
    """Decide, and ask for what the decision needs, in the order in which it needs it; nothing is asked twice.

    Args:
        decide: `routing.decision.decide`.
    """
    while True:
        questions: list[Question] = []
        decision = decide(table, head, roll, person._replace(questions=questions))
        if not questions:
            return decision, person
        name = questions[0].predicate
        answer = yield questions[0]
        if name is None:
            person = person._replace(user=answer)
        else:
            person = person._replace(predicates={**person.predicates, name: answer})


def predicates_of(release: GrayRelease) -> frozenset[str]:
    """The names of the predicates that a release may ask."""
    consent = release.cookie.consent if release.missing == "cookie" else None
    asked = {term.name for term in _all_terms(release.audience) if term.kind == "predicate"}
    return frozenset(asked if consent is None else {*asked, consent})


def _all_terms(terms: tuple[Term, ...]) -> Iterator[Term]:
    for term in terms:
        yield term
        yield from _all_terms(term.inner)


def asks_session(release: GrayRelease) -> bool:
    """Whether a release may look at the session of the app."""
    by_key = any(each.kind == "session" for each in release.sticky)
    return by_key or any(each.kind == "session" for each in _all_terms(release.audience))
