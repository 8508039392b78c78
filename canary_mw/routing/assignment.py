"""Which variant of a release a request gets, and why. Pure: the same request always gets the same answer."""

from bisect import bisect_right
from functools import partial
from typing import NamedTuple

from canary_mw.http.messages import RequestHead
from canary_mw.routing.audience import all_hold, asks_person, predicate_test
from canary_mw.routing.choice import chooser, lane_of, lane_variant
from canary_mw.routing.keys import first_cookie, key_reader
from canary_mw.routing.person import Person, Question, not_signed
from canary_mw.routing.ranges import Claims
from canary_mw.routing.releases.anonymous import anonymous_cookie, id_of
from canary_mw.routing.releases.override import Override, overridden, progress_of
from canary_mw.routing.sticky import digest_function, foreign_slot_function, salted
from canary_mw.rules.epoch import Epoch, epoch_of_release
from canary_mw.rules.release import SLOTS, STABLE, GrayRelease, Missing

DRAWS = frozenset(("sticky", "roll", "new"))


class Assigned(NamedTuple):
    """What a release decides for one request.

    Attributes:
        name: of the release.
        variant: its name, or "stable"; None where only the draw of the request settles it.
        reason: the step that settles it, as "sticky" or "choice:header".
        slot: of the key, None where no key was looked up.
        key: the expression that gave the key, never its value.
        anonymous_id: the id of the cookie that the request has, or gets.
        issued: the day of issue of that cookie, None for one that is new.
        digest: 64 bits of the hash of the key, None where none was looked up.
        epoch: of the weights, None outside of a release in force.
    """

    name: str
    variant: str | None
    reason: str
    slot: int | None = None
    key: str | None = None
    anonymous_id: bytes | None = None
    issued: int | None = None
    digest: int | None = None
    epoch: Epoch | None = None


_assigned = partial(tuple.__new__, Assigned)


class CompiledRelease:
    """A release with all that can be computed before a request.

    Attributes:
        document, written: the release as it is in force, and as it is written.
        override: what makes the difference between the two, None where there is none.
        claims: the owner of every slot.
        epoch: of its weights.
        lane: how it tells of its decisions.
        asks_person: whether it looks at the user or session of the app, or asks its predicates.
    """

    __slots__ = (
        "_anonymous",
        "_audience",
        "_bounds",
        "_choose",
        "_consent",
        "_digest",
        "_disabled",
        "_drained",
        "_exceptions",
        "_foreign",
        "_has_steps",
        "_holdout",
        "_keys",
        "_layer",
        "_lists",
        "_obeys_lanes",
        "_owners",
        "asks_person",
        "claims",
        "document",
        "epoch",
        "lane",
        "name",
        "override",
        "written",
    )

    def __init__(self, written: GrayRelease, override: Override | None = None) -> None:
        self.written, self.override = written, override
        document = self.document = overridden(written, override)
        self.name = document.name
        self.claims = Claims(document.variants)
        self.epoch = epoch_of_release(document, self.claims.weights, *progress_of(override))
        self._bounds, self._owners = self.claims.bounds, self.claims.owners
        self._disabled = None if document.enabled else Assigned(document.name, STABLE, "disabled")
        self._obeys_lanes = override is None or not override.off
        self.lane = lane_of(document)
        self._choose = chooser(document)
        self._keys = tuple((key_reader(each), str(each)) for each in document.sticky)
        self._anonymous = document.cookie.name.encode()
        self._lists = bool(document.never) or any(variant.always for variant in document.variants)
        drained = [variant.name for variant in document.variants if document.drain and not variant.slots]
        self._drained = {name.encode(): name for name in drained}
        self._layer = salted("layer", document.layer.name) if document.layer else None
        self._holdout = salted("holdout", document.holdout.name) if document.holdout else None
        self._exceptions = bool(self._lists or self._drained or self._layer or self._holdout)
        self._has_steps = bool(self._disabled or self._choose or self._exceptions)
        self._audience = all_hold(document.audience)
        self._exceptions = self._exceptions or self._audience is not None
        self._has_steps = self._has_steps or self._audience is not None
        by_person = any(each.kind in ("user", "session") for each in document.sticky)
        consent = document.cookie.consent if document.missing == "cookie" else None
        self._consent = None if consent is None else predicate_test(consent)
        self.asks_person = bool(by_person or consent or asks_person(document.audience))
        self._digest = digest_function(document.hash)
        self._foreign = foreign_slot_function(document.hash)

    def assign(self, head: RequestHead, person: Person, roll: float) -> Assigned:
        """The variant of a request.

        Args:
            roll: a random percent in [0, 100).
        """
        # The short way of most requests; `settle` gives the same.
        if not self._has_steps and not person.trusted and person.is_signed is not_signed:
            for read, text in self._keys:
                if key := read(head, person):
                    digest = self._digest(key)
                    slot = digest * SLOTS >> 64 if self._foreign is None else self._foreign(key)
                    owner = self._owners[bisect_right(self._bounds, slot) - 1]
                    return _assigned((self.name, owner, "sticky", slot, text, None, None, digest, self.epoch))
        assigned = self.settle(head, person)
        if assigned.variant is not None:
            return assigned
        if assigned.reason == "roll":
            return assigned._replace(variant=self.claims.owner(int(roll * SLOTS / 100)), epoch=self.epoch)
        new_id = person.new_id() if person.new_id is not None else id_of(roll)
        drawn = self._by_key(new_id, None, head, person)
        reason = "new" if drawn.reason == "sticky" else drawn.reason
        return drawn._replace(reason=reason, anonymous_id=new_id)

    def settle(self, head: RequestHead, person: Person) -> Assigned:
        """As `assign`, but without a draw: `variant` is None where there has to be one."""
        if self._disabled is not None:
            return self._disabled
        found = self.by_lane(head, person)
        if found is None and self._choose is not None:
            found = self.by_choice(head, person)
        if found is not None:
            return found
        for read, text in self._keys:
            key = read(head, person)
            if key:
                return self._by_key(key, text, head, person)
        return self._without_key(head, person)

    def by_lane(self, head: RequestHead, person: Person) -> Assigned | None:
        """The variant that a trusted peer has decided; stable for one that this release does not have."""
        if not self._obeys_lanes or (not person.trusted and person.is_signed is not_signed):
            return None
        value = lane_variant(head, self.lane, person)
        return None if value is None else self.in_lane(value.decode())

    def in_lane(self, variant: str) -> Assigned:
        """What a service before has decided; stable for a variant that this release does not have."""
        known = self._obeys_lanes and variant in self.claims.weights
        return Assigned(self.name, variant if known else STABLE, "lane")

    def by_choice(self, head: RequestHead, person: Person) -> Assigned | None:
        """The variant that the request names."""
        found = self._choose(head, person) if self._choose is not None else None
        return None if found is None else Assigned(self.name, found[1], found[0])

    def key_of(self, head: RequestHead, person: Person) -> tuple[bytes, str] | None:
        """The key of a request and the expression that gave it, the anonymous cookie included."""
        for read, text in self._keys:
            if key := read(head, person):
                return key, text
        cookie = anonymous_cookie(head, self._anonymous) if self._missing(head, person) == "cookie" else None
        return None if cookie is None else (cookie[1], self._cookie_key)

    @property
    def _cookie_key(self) -> str:
        return f"cookie:{self.document.cookie.name}"

    def _by_key(self, key: bytes, text: str | None, head: RequestHead, person: Person) -> Assigned:
        if self._exceptions:
            found = self.by_list(key, text) or self.by_drain(head, person) or self.by_exclusion(key, text)
            found = found or self.by_audience(head, person, text)
            if found is not None:
                return found
        slot, digest = self._slot(key), self._digest(key)
        owner = self._owners[bisect_right(self._bounds, slot) - 1]
        return Assigned(self.name, owner, "sticky", slot, text, digest=digest, epoch=self.epoch)

    def _slot(self, key: bytes) -> int:
        return self._digest(key) * SLOTS >> 64 if self._foreign is None else self._foreign(key)

    def by_list(self, key: bytes, text: str | None) -> Assigned | None:
        """The variant whose list names the key."""
        if not self._lists:
            return None
        if key in self.document.never:
            return Assigned(self.name, STABLE, "list:never", key=text)
        for variant in self.document.variants:
            if key in variant.always:
                return Assigned(self.name, variant.name, "list:always", key=text)
        return None

    def by_drain(self, head: RequestHead, person: Person) -> Assigned | None:
        """The variant of weight 0 that the request was in before."""
        if not self._drained:
            return None
        name = drain_cookie(self.name)
        value = first_cookie(head, name)
        variant = self._drained.get(person.verify_cookie(name, value) or b"") if value else None
        return None if variant is None else Assigned(self.name, variant, "drain")

    def by_exclusion(self, key: bytes, text: str | None) -> Assigned | None:
        """Stable, for a key outside of the slice of the layer, or in the holdout."""
        layer, holdout = self.document.layer, self.document.holdout
        if layer is not None and self._layer is not None and not layer.start <= self._layer(key) < layer.end:
            return Assigned(self.name, STABLE, "layer", key=text)
        if holdout is not None and self._holdout is not None and self._holdout(key) < holdout.slots:
            return Assigned(self.name, STABLE, "holdout", key=text)
        return None

    def by_audience(self, head: RequestHead, person: Person, text: str | None) -> Assigned | None:
        """Stable, for who is not in the audience."""
        held = None if self._audience is None else self._audience(head, person)
        if self._audience is None or held is True:
            return None
        if isinstance(held, Question) and person.questions is not None:
            person.questions.append(held)
        return Assigned(self.name, STABLE, "audience", key=text)

    def _without_key(self, head: RequestHead, person: Person) -> Assigned:
        missing = self._missing(head, person)
        if missing == "cookie" and (cookie := anonymous_cookie(head, self._anonymous)) is not None:
            issued, key = cookie
            assigned = self._by_key(key, self._cookie_key, head, person)
            return assigned if issued is None else assigned._replace(anonymous_id=key, issued=issued)
        found = self.by_drain(head, person) or self.by_audience(head, person, None)
        if found is not None:
            return found
        if missing == "cookie":
            return Assigned(self.name, None, "new")
        # What cannot be looked up in a layer or a holdout could be in them.
        rolls = missing == "roll" and self._layer is None and self._holdout is None
        return Assigned(self.name, None, "roll") if rolls else Assigned(self.name, STABLE, "missing")

    def _missing(self, head: RequestHead, person: Person) -> Missing:
        """What a request without a key gets; without consent there is no cookie."""
        held = True if self._consent is None else self._consent(head, person)
        if isinstance(held, Question) and person.questions is not None:
            person.questions.append(held)
        return self.document.missing if held is True else "stable"

    def variant_of(self, key: str | bytes) -> str:
        """The variant of a key by lists, layer, holdout and hash, as for a request that brings only this key."""
        return self.assignment_of(key).variant or STABLE

    def assignment_of(self, key: str | bytes) -> Assigned:
        """As `variant_of`, with the reason and the slot."""
        raw = key.encode() if isinstance(key, str) else key
        if self._disabled is not None:
            return self._disabled
        found = self.by_list(raw, None) or self.by_exclusion(raw, None)
        if found is not None:
            return found
        slot = self._slot(raw)
        return Assigned(self.name, self.claims.owner(slot), "sticky", slot)

    @property
    def drawn_share(self) -> float:
        """The part of all new users that can be drawn into a variant: slice x (1 - holdout)."""
        layer, holdout = self.document.layer, self.document.holdout
        share = 1.0 if layer is None else (layer.end - layer.start) / SLOTS
        return share if holdout is None else share * (SLOTS - holdout.slots) / SLOTS

    def effective_shares(self) -> dict[str, float]:
        """The percent of all users with a key in each variant, and in stable."""
        percents = {name: slots * 100 * self.drawn_share / SLOTS for name, slots in self.claims.weights.items()}
        if self._disabled is not None:
            percents = dict.fromkeys(percents, 0.0)
        percents[STABLE] = 100.0 - sum(percents.values())
        return {name: round(percent, 10) for name, percent in percents.items()}

    def __repr__(self) -> str:
        return f"<CompiledRelease {self.name}>"


def drain_cookie(release: str) -> bytes:
    """The name of the cookie that says in which variant of a release a session is."""
    return f"cmw_in_{release}".encode()
