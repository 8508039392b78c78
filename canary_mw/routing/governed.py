"""A group that a release governs: where the share of each variant goes, and that of stable."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from canary_mw.http.messages import RequestHead
from canary_mw.routing.assignment import Assigned, CompiledRelease
from canary_mw.routing.decided import Decision
from canary_mw.routing.person import Person
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.release import SLOTS, STABLE
from canary_mw.rules.service import parse_service
from canary_mw.rules.weights import rescaled

# Stands for the wrapped app where a release has no stable Mapping.
APP = Mapping(name="", prefix="/", service=parse_service("app", "default")[0])


class GovernedGroup:
    """What a release decides in one group; made when the table is built.

    Args:
        members: the decisions of the Mappings of the group, without the release.
        held_back: names of Mappings that get nothing.

    Attributes:
        answers_locally: the wrapped app answers what no Mapping of the group takes; otherwise the search goes on.
    """

    __slots__ = ("_app", "_checked", "_sent", "_stable", "_targets", "answers_locally", "release")

    def __init__(
        self, release: CompiledRelease, members: Sequence[Decision], app: Decision, held_back: Collection[str]
    ) -> None:
        document = release.document
        owners = {name: variant.name for variant in document.variants for name in variant.mappings}
        self.release = release
        members = [replace(each, lane=release.lane) for each in members]
        self._app = replace(app, lane=release.lane)
        self._targets = {
            owners[each.mapping.name]: replace(each, variant="gray") for each in members if each.mapping.name in owners
        }
        named = [each for each in members if each.mapping.name in document.stable]
        others = [each for each in members if each.mapping.name not in owners]
        free = [each for each in others if each.mapping.name not in held_back]
        # Another release in error may call the stable Mapping gray. Somebody has to serve.
        serving = free or [each for each in others if each.mapping.weight is None or each.mapping.percent][:1]
        self._stable = tuple(_stable_shares([replace(each, variant="stable") for each in named or serving]))
        self._sent = [
            (replace(each, sent=True), owners.get(each.mapping.name, STABLE)) for each in members if each.local
        ]
        self._checked = len({each.mapping.case_sensitive for each in members}) > 1
        # One look-up for most requests.
        if len(self._stable) == 1 and not self._checked:
            self._targets.setdefault(STABLE, self._stable[0][1])
        self.answers_locally = document.stable_local

    def decide(self, head: RequestHead, roll: float, person: Person) -> Decision:
        """The decision for a request; that of the app where no Mapping of the group takes it."""
        if person.stable_of == self.release.name:
            return self._stable_target(head, roll).with_release(Assigned(self.release.name, STABLE, "fallback"))
        if self._sent and head.has(b"via"):
            # The sender has asked already.
            assigned = self.release.assign(head, person._replace(questions=None), roll)
            sent = self._sent_decision(head, assigned, person)
            if sent is not None:
                return sent
        assigned = self.release.assign(head, person, roll)
        target = self._targets.get(assigned.variant or STABLE)
        if target is None or (self._checked and not target.mapping.accepts_path(head.path)):
            target = self._stable_target(head, self._stable_roll(assigned, roll))
        return target.with_release(assigned)

    def stable_decision(self, head: RequestHead, roll: float) -> Decision | None:
        """The decision as if the release were disabled; None where the search goes on behind the group."""
        target = self._stable_target(head, roll)
        if target is self._app and not self.answers_locally:
            return None
        return target.with_release(Assigned(self.release.name, STABLE, "disabled"))

    def outcomes(self, head: RequestHead, person: Person) -> tuple[Assigned, list[tuple[float, Decision]]]:
        """What a request can get: the assignment before any draw, and the part of each decision."""
        assigned = self.release.settle(head, person)
        if self._sent and head.has(b"via"):
            sent = self._sent_decision(head, assigned, person)
            if sent is not None and sent.release is not None:
                return sent.release, [(1.0, sent)]
        found: list[tuple[float, Decision]] = []
        for variant, part in self._parts(assigned):
            target = self._targets.get(variant)
            result = assigned._replace(variant=variant)
            if target is None or (self._checked and not target.mapping.accepts_path(head.path)):
                found += [(part * size, each.with_release(result)) for size, each in self._stable_parts(head)]
            else:
                found.append((part, target.with_release(result)))
        return assigned, found

    def shares(self) -> Iterable[tuple[float, Decision]]:
        """The percent of all users that each Mapping gets."""
        effective, rest = self.release.effective_shares(), 100.0
        for name, target in self._targets.items():
            if name != STABLE:
                rest -= effective[name]
                yield effective[name], target
        low = 0.0
        for bound, decision in self._stable:
            yield rest * max(bound - low, 0.0) / 100, decision
            low = max(low, bound)

    def _parts(self, assigned: Assigned) -> list[tuple[str, float]]:
        """The variants that a request can get, each with its part."""
        if assigned.variant is not None:
            return [(assigned.variant, 1.0)]
        drawn = self.release.drawn_share if assigned.reason == "new" else 1.0
        parts = [(name, drawn * slots / SLOTS) for name, slots in self.release.claims.weights.items() if slots]
        return [*parts, (STABLE, 1.0 - sum(part for _, part in parts))]

    def _stable_parts(self, head: RequestHead) -> Iterable[tuple[float, Decision]]:
        low, shares = 0.0, self._usable(head)
        for bound, decision in shares:
            if bound > low:
                yield (bound - low) / shares[-1][0], decision
            low = bound
        if not shares:
            yield 1.0, self._app

    def _usable(self, head: RequestHead) -> Sequence[tuple[float, Decision]]:
        if not self._checked:
            return self._stable
        return _only(self._stable, head.path)

    def _stable_target(self, head: RequestHead, roll: float) -> Decision:
        if self._checked or len(self._stable) != 1:
            return next((each for bound, each in self._usable(head) if roll < bound), self._app)
        return self._stable[0][1]

    def _stable_roll(self, assigned: Assigned, roll: float) -> float:
        """The roll by which several stable Mappings divide; where it also drew stable, its place among stable's."""
        if assigned.reason != "roll" or len(self._stable) < 2:
            return roll
        return self.release.claims.place_in_stable(roll * SLOTS / 100)

    def _sent_decision(self, head: RequestHead, assigned: Assigned, person: Person) -> Decision | None:
        """The decision of another canary-mw that sent the request to the service that this process runs."""
        found = [each for each in self._sent if person.is_sent(head, each[0].mapping.via_comment)]
        if not found:
            return None
        # The comment does not tell Mappings of one service apart.
        decision, variant = next((each for each in found if each[1] == assigned.variant), found[0])
        if assigned.reason != "sticky" or (assigned.variant or STABLE) != variant:
            return decision.with_release(Assigned(self.release.name, variant, "sent"))
        # The sender has drawn it by the same key; what the app records counts for that draw.
        digest, epoch = assigned.digest, assigned.epoch
        return decision.with_release(Assigned(self.release.name, variant, "sent", digest=digest, epoch=epoch))


def _stable_shares(members: list[Decision]) -> Iterable[tuple[float, Decision]]:
    """Cumulative bounds up to 100, by the weights of the Mappings; where nobody has one, in equal parts."""
    by_mapping = {each.mapping.name: each for each in members}
    for mapping, bound in rescaled([each.mapping for each in members]):
        yield bound, by_mapping[mapping.name]


def _only(shares: Sequence[tuple[float, Decision]], path: bytes) -> Sequence[tuple[float, Decision]]:
    """The shares of those Mappings that accept a path, rescaled to 100."""
    low, total, kept = 0.0, 0.0, []
    for bound, decision in shares:
        if decision.mapping.accepts_path(path):
            total += bound - low
            kept.append((total, decision))
        low = bound
    return [(bound * 100 / total, decision) for bound, decision in kept] if total else []
