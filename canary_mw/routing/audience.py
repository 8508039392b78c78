"""The audience of a release: whether its terms hold for a request. A value that is missing fails its term."""

from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import cast

from canary_mw.http.messages import RequestHead
from canary_mw.routing.keys import key_reader
from canary_mw.routing.person import Person
from canary_mw.rules.release import KeyExpression, KeyKind, Term

Holds = Callable[[RequestHead, Person], bool]


def all_hold(terms: tuple[Term, ...]) -> Holds | None:
    """The function that tells whether all terms hold; None without any."""
    tests = tuple(map(_test, terms))
    if not tests:
        return None
    return lambda head, person: all(test(head, person) for test in tests)


def asks_person(terms: tuple[Term, ...]) -> bool:
    """Whether a term looks at the user or the session."""
    return any(term.kind in ("user", "session") or asks_person(term.inner) for term in terms)


def _test(term: Term) -> Holds:
    if term.kind == "predicate":
        return lambda head, person: person.predicates.get(term.name) is True
    if term.kind == "client_ip":
        return _in_networks(term)
    if term.kind in ("any", "all", "not"):
        inner = tuple(map(_test, term.inner))
        if term.kind == "any":
            return lambda head, person: any(test(head, person) for test in inner)
        wanted = term.kind == "all"
        return lambda head, person: all(test(head, person) for test in inner) is wanted
    read = key_reader(KeyExpression(cast(KeyKind, term.kind), term.name))
    return lambda head, person: read(head, person) in term.values


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
