"""Explicit choices: the lane from a service before us, and the header, cookie or query parameter of a user."""

from collections.abc import Callable

from canary_mw.http.host_list import host_matcher
from canary_mw.http.lanes import BAGGAGE, Lane, baggage_lanes, is_tag, lanes_in, lines_of, names_lanes
from canary_mw.http.messages import RequestHead
from canary_mw.routing.keys import first_cookie, first_header, first_parameter
from canary_mw.routing.person import Person
from canary_mw.rules.release import STABLE, Choice, GrayRelease

# Reason and variant of a choice, None where a request makes none.
Choose = Callable[[RequestHead, Person], tuple[str, str] | None]


def lane_of(release: GrayRelease) -> Lane:
    """How a release tells of its decisions."""
    propagate = release.propagate
    variants = frozenset(variant.name.encode() for variant in release.variants)
    is_tag, hosts = propagate.format == "tag", host_matcher(propagate.hosts)
    return Lane(release.lane.encode(), propagate.header, is_tag, propagate.baggage, variants, hosts)


def lane_variant(head: RequestHead, lane: Lane, person: Person) -> bytes | None:
    """The variant that a trusted peer, or a signed header, names for a lane."""
    found = None
    if head.has(lane.header) and (person.trusted or person.is_signed(head, lane.header)):
        value = lines_of(head.headers, lane.header)
        found = lanes_in(value).get(lane.name) if not lane.is_tag else value if is_tag(value) else None
    if found is not None or not lane.baggage or not names_lanes(head.headers):
        return found
    believed = person.trusted or person.is_signed(head, BAGGAGE)
    return lanes_in(baggage_lanes(head.headers)).get(lane.name) if believed else None


def chooser(release: GrayRelease) -> Choose | None:
    """The function that reads the choice of a request; None where the release allows none."""
    choice = release.choice
    variants = _variants_by_value(release)
    sources: list[tuple[str, Callable[[RequestHead], bytes | None], bytes | None]] = []
    if (header := choice.header) is not None:
        sources.append(("choice:header", lambda head: first_header(head, header), header))
    if (cookie := choice.cookie) is not None:
        sources.append(("choice:cookie", lambda head: first_cookie(head, cookie), None))
    if (query := choice.query) is not None:
        sources.append(("choice:query", lambda head: first_parameter(head, query), None))

    def choose(head: RequestHead, person: Person) -> tuple[str, str] | None:
        for reason, read, signed in sources:
            variant = variants.get(read(head) or b"")
            if variant is not None and _may_choose(choice, head, person, signed):
                return reason, variant
        return None

    return choose if sources else None


def _variants_by_value(release: GrayRelease) -> dict[bytes, str]:
    variants = {variant.name.encode(): variant.name for variant in release.variants}
    variants |= dict.fromkeys(release.choice.always, release.variants[0].name)
    return variants | dict.fromkeys((*release.choice.never, STABLE.encode()), STABLE)


def _may_choose(choice: Choice, head: RequestHead, person: Person, header: bytes | None) -> bool:
    return not choice.trusted or person.trusted or (header is not None and person.is_signed(head, header))
