"""The audience of a release: whether its terms hold for a request. A value that is missing fails its term.

What cannot be told is neither true nor false, below `not` too: a predicate that fails never makes the audience larger.
"""

from collections.abc import Callable, Iterable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import cast

from canary_mw.http.messages import RequestHead
from canary_mw.routing.keys import key_reader
from canary_mw.routing.person import FAILED, UNASKED, Person, Question
from canary_mw.rules.release import KeyExpression, KeyKind, Term

# Whether a term holds; a question that has to be answered before, or None where it has no answer.
Held = bool | Question | None
Holds = Callable[[RequestHead, Person], Held]
_THE_USER = Question()


def all_hold(terms: tuple[Term, ...]) -> Holds | None:
    """The function that tells whether all terms hold; None without any."""
    tests = tuple(map(_test, terms))
    return _all(tests) if tests else None


def asks_person(terms: tuple[Term, ...]) -> bool:
    """Whether a term looks at the user or the session, or asks a predicate."""
    return any(term.kind in ("user", "session", "predicate") or asks_person(term.inner) for term in terms)


def predicate_test(name: str) -> Holds:
    """The function that gives the answer of a predicate."""
    question = Question(name)

    def holds(head: RequestHead, person: Person) -> Held:
        if name not in person.predicates:
            return question
        answer = person.predicates[name]
        return answer if isinstance(answer, bool) else None

    return holds


def _all(tests: tuple[Holds, ...]) -> Holds:
    return lambda head, person: _conjunction(test(head, person) for test in tests)


def _any(tests: tuple[Holds, ...]) -> Holds:
    return lambda head, person: _negation(_conjunction(_negation(test(head, person)) for test in tests))


def _conjunction(found: Iterable[Held]) -> Held:
    """False as soon as one is false. Of what is open, the first question."""
    unsettled: list[Held] = []
    for held in found:
        if held is False:
            return False
        if held is not True:
            unsettled.append(held)
    return next((held for held in unsettled if held is not None), None) if unsettled else True


def _negation(held: Held) -> Held:
    return not held if isinstance(held, bool) else held


def _test(term: Term) -> Holds:
    if term.kind == "predicate":
        return predicate_test(term.name)
    if term.kind == "client_ip":
        return _in_networks(term)
    if term.kind in ("any", "all", "not"):
        inner = tuple(map(_test, term.inner))
        if term.kind == "any":
            return _any(inner)
        held = _all(inner)
        return held if term.kind == "all" else lambda head, person: _negation(held(head, person))
    read = key_reader(KeyExpression(cast(KeyKind, term.kind), term.name))
    if term.kind != "user":
        return lambda head, person: read(head, person) in term.values

    def user_holds(head: RequestHead, person: Person) -> Held:
        if person.user is UNASKED or person.user is FAILED:
            return _THE_USER if person.user is UNASKED else None
        return read(head, person) in term.values

    return user_holds


def _in_networks(term: Term) -> Holds:
    networks = [ip_network(each) for each in term.networks]

    def holds(head: RequestHead, person: Person) -> bool:
        try:
            address = ip_address((person.client or head.client or "").partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in networks)

    return holds
