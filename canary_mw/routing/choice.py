"""Explicit choices: the lane from a canary-mw before us, and the header, cookie or query parameter of a user."""

import re
from collections.abc import Callable

from canary_mw.http.messages import RequestHead
from canary_mw.routing.keys import first_cookie, first_header, first_parameter
from canary_mw.routing.person import Person
from canary_mw.rules.release import STABLE, Choice, GrayRelease

MAX_LANES, MAX_LANE_BYTES = 16, 1024
_LANE = re.compile(rb"[ \t]*([A-Za-z0-9._-]{1,64})=([A-Za-z0-9._-]{1,64})[ \t]*")

# Reason and variant of a choice, None where a request makes none.
Choose = Callable[[RequestHead, Person], tuple[str, str] | None]


def lane_variant(head: RequestHead, header: bytes, lane: bytes) -> bytes | None:
    """The variant of a lane in the lane header; of several entries the first one counts."""
    line = b",".join(value for name, value in head.headers if name == header)[:MAX_LANE_BYTES]
    for entry in line.split(b",")[:MAX_LANES]:
        match = _LANE.fullmatch(entry)
        if match is not None and match[1] == lane:
            return match[2]
    return None


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
