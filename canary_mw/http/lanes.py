"""The texts by which services tell each other what releases have decided: a list of lanes, a tag, a member of baggage.

A list is `svc=gray, search=stable`. What does not parse is skipped; of one lane the first entry counts.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain, product
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from canary_mw.http.headers import fold_underscores
from canary_mw.http.host_list import Matcher, nobody
from canary_mw.http.messages import RawHeaders

LANE_HEADER, BAGGAGE, BAGGAGE_MEMBER = b"x-canary-lane", b"baggage", b"canary-lane"
MAX_LANES, MAX_LANE_BYTES = 16, 1024
_NAME = rb"[A-Za-z0-9._-]{1,64}"
_LANE = re.compile(rb"[ \t]*(%b)=(%b)[ \t]*" % (_NAME, _NAME))
_TAG = re.compile(_NAME)
# Parts of a name, with hyphens between them, whose spellings are kept; and of how many sets of names.
_MOST_PARTS, _MOST_SETS = 7, 16


class Lane(NamedTuple):
    """How a release tells of its decisions.

    Attributes:
        name: of the lane.
        header: lower-case.
        is_tag: the header holds the bare name of the gray variant, and nothing for stable.
        baggage: the lanes are also a member of `baggage`.
        variants: the gray variants of the release.
        hosts: those that `baggage` may go to.
    """

    name: bytes
    header: bytes = LANE_HEADER
    is_tag: bool = False
    baggage: bool = False
    variants: frozenset[bytes] = frozenset()
    hosts: Matcher = nobody


class LaneHeaders(frozenset[bytes]):
    """The headers that tell of some lanes; with any, also the one that services behind believe by default.

    Attributes:
        baggage: whether `baggage` tells of them, too.
    """

    baggage: bool = False


def lane_headers(lanes: Iterable[Lane]) -> LaneHeaders:
    """The headers of some lanes."""
    given = tuple(lanes)
    headers = LaneHeaders((LANE_HEADER, *(lane.header for lane in given)) if given else ())
    headers.baggage = any(lane.baggage for lane in given)
    return headers


def lanes_in(value: bytes) -> dict[bytes, bytes]:
    """The variants of a list by lane, in the order of the list."""
    found: dict[bytes, bytes] = {}
    for entry in _whole_entries(value):
        match = _LANE.fullmatch(entry)
        if match is not None:
            found.setdefault(match[1], match[2])
    return found


def _whole_entries(value: bytes) -> list[bytes]:
    """The entries within the limits; one that is cut off by them would be another one."""
    if len(value) > MAX_LANE_BYTES:
        value = value[: value.rfind(b",", 0, MAX_LANE_BYTES + 1)] if b"," in value[: MAX_LANE_BYTES + 1] else b""
    return value.split(b",")[:MAX_LANES]


def lane_list(lanes: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The list of some lanes and variants, within the limits."""
    text, count = b"", 0
    for name, variant in lanes:
        entry = b"%b=%b" % (name, variant)
        if count == MAX_LANES or len(text) + len(entry) + 2 > MAX_LANE_BYTES:
            break
        text, count = text + b", " + entry if text else entry, count + 1
    return text


def with_lane(value: bytes, name: bytes, variant: bytes) -> bytes:
    """A list in which a lane has a variant; the others stay."""
    others = [pair for pair in lanes_in(value).items() if pair[0] != name]
    return lane_list([(name, variant), *others])


def is_tag(value: bytes) -> bool:
    """Whether a text can be the name of a variant."""
    return _TAG.fullmatch(value) is not None


def lines_of(headers: RawHeaders, name: bytes) -> bytes:
    """All values of a header as one."""
    return b",".join(value for each, value in headers if each == name)


def received_lanes(headers: RawHeaders, header: bytes, *, baggage: bool) -> bytes:
    """The list that a request brings.

    Args:
        baggage: the member of `baggage` counts for lanes that the header has no entry of.
    """
    value = lines_of(headers, header)
    more = baggage_lanes(headers) if baggage else b""
    return b"%b,%b" % (value, more) if value and more else value or more


def baggage_lanes(headers: RawHeaders) -> bytes:
    """The list in the member of `baggage`, empty without one."""
    for member in lines_of(headers, BAGGAGE).split(b","):
        name, _, value = member.partition(b"=")
        if name.strip() == BAGGAGE_MEMBER:
            return unquote_to_bytes(value.partition(b";")[0].strip())
    return b""


def without_member(baggage: bytes) -> bytes:
    """A value of `baggage` without our member."""
    members = baggage.split(b",")
    return b",".join(each for each in members if each.partition(b"=")[0].strip() != BAGGAGE_MEMBER).strip()


def with_member(baggage: bytes, lanes: bytes) -> bytes:
    """A value of `baggage` with our member, percent-encoded."""
    member = b"%b=%b" % (BAGGAGE_MEMBER, quote_from_bytes(lanes, safe="").encode())
    others = without_member(baggage)
    return b"%b,%b" % (others, member) if others else member


def names_lanes(headers: RawHeaders) -> bool:
    """Whether `baggage` may hold our member."""
    return any(BAGGAGE_MEMBER in value for name, value in headers if name == BAGGAGE)


def has_lanes(headers: RawHeaders, names: frozenset[bytes]) -> bool:
    """Whether headers may hold lanes, by the names of the headers that do."""
    found = {name for name, _ in headers}
    if (spellings := _spellings(names)) is None:
        found = set(map(fold_underscores, found))
        spellings = frozenset(map(fold_underscores, names))
    return not found.isdisjoint(spellings) or (BAGGAGE in found and names_lanes(headers))


@lru_cache(_MOST_SETS)
def _spellings(names: frozenset[bytes]) -> frozenset[bytes] | None:
    """The names with a hyphen or an underscore in each of their places; None where these are too many."""
    folded = [fold_underscores(name).split(b"-") for name in names]
    if any(len(parts) > _MOST_PARTS for parts in folded):
        return None
    return frozenset(
        b"".join(chain.from_iterable(zip(parts, (*marks, b""), strict=True)))
        for parts in folded
        for marks in product((b"-", b"_"), repeat=len(parts) - 1)
    )


def sent_value(lane: Lane, received: bytes, variant: bytes, stable: bytes) -> bytes:
    """The value of the header of a lane, empty for none.

    Args:
        received: its value in the request that was decided.
        variant: the decision; `stable` for none of gray.
    """
    if not lane.is_tag:
        return with_lane(received, lane.name, variant)
    if variant != stable:
        return variant
    # A tag of another service's variant is for those behind.
    return received if is_tag(received) and received not in lane.variants else b""


def with_lane_headers(
    headers: list[tuple[bytes, bytes]], lane: Lane, variant: bytes, stable: bytes, *, listed: bool
) -> list[tuple[bytes, bytes]]:
    """The headers of a request that a release has decided, with the decision.

    Args:
        listed: the host is one of those that `baggage` may go to.
    """
    received = received_lanes(headers, lane.header, baggage=lane.baggage and not lane.is_tag)
    value = sent_value(lane, received, variant, stable)
    listing = received_lanes(headers, LANE_HEADER, baggage=lane.baggage) if lane.is_tag else received
    # An upstream behind CGI or WSGI takes another spelling for the same header.
    name = fold_underscores(lane.header)
    kept = [pair for pair in headers if fold_underscores(pair[0]) != name]
    if lane.baggage:
        kept = _with_baggage(kept, with_lane(listing, lane.name, variant) if listed else None)
    return [*kept, (lane.header, value)] if value else kept


def _with_baggage(headers: list[tuple[bytes, bytes]], lanes: bytes | None) -> list[tuple[bytes, bytes]]:
    value = without_member(lines_of(headers, BAGGAGE))
    value = value if lanes is None else with_member(value, lanes)
    kept = [pair for pair in headers if pair[0] != BAGGAGE]
    return [*kept, (BAGGAGE, value)] if value else kept


def without_lanes(headers: RawHeaders, names: frozenset[bytes], kept: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    """The headers without lanes, in whatever form.

    Args:
        names: of the headers that hold lanes.
        kept: those of them that may stay.
    """
    folded = frozenset(map(fold_underscores, names))
    found = [pair for pair in headers if fold_underscores(pair[0]) not in folded or pair[0] in kept]
    return found if BAGGAGE in kept or not names_lanes(found) else _with_baggage(found, None)
