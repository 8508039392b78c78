"""A gray release as a value: who gets which variant of a group of Mappings, and what happens when gray fails.

All percents are whole numbers of slots, so that nothing rounds differently anywhere.
"""

from collections.abc import Mapping as Dict
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from canary_mw.rules.id_list import NO_IDS, IdList
from canary_mw.rules.plan import Plan
from canary_mw.rules.slots import SLOTS as SLOTS
from canary_mw.rules.slots import SLOTS_PER_PERCENT as SLOTS_PER_PERCENT

# The name of what is no variant.
STABLE = "stable"

KeyKind = Literal["header", "cookie", "query", "user", "session", "client_ip"]
HashKind = Literal["sha256", "unleash", "growthbook", "flagd-v2", "flagd-v3"]
TermKind = Literal["predicate", "user", "session", "header", "cookie", "query", "client_ip", "any", "all", "not"]
Missing = Literal["stable", "roll", "cookie"]
FailureKind = Literal["connect", "timeout", "reset", "overload"]


class KeyExpression(NamedTuple):
    """Where a key is read: the name of a header, cookie or query parameter, or a path; a client_ip has none."""

    kind: KeyKind
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


class HashFunction(NamedTuple):
    """How a key becomes a slot.

    Attributes:
        name: what is hashed with the key; the salt, or the name that another product uses.
    """

    kind: HashKind
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseVariant:
    """One variant of a release.

    Attributes:
        mappings: names of the Mappings that serve it, at most one in a group.
        slots: its weight; None where the weight of its Mapping is the percent.
        at: the slot where its claim starts, None for a start by its position.
        grows_down: whether its claim walks down from its start.
        always: ids that are always in it.
        always_file: a file with more of them.
    """

    name: str
    mappings: tuple[str, ...]
    slots: int | None = None
    at: int | None = None
    grows_down: bool = False
    always: IdList = NO_IDS
    always_file: str | None = None


class Term(NamedTuple):
    """A condition on who sends a request; see `audience`.

    Attributes:
        name: of the predicate, header, cookie or parameter; the path in the user or session.
        values: the texts that count.
        networks: of `client_ip`, as CIDR.
        inner: of `any`, `all` and `not`.
    """

    kind: TermKind
    name: str = ""
    values: frozenset[bytes] = frozenset()
    networks: tuple[str, ...] = ()
    inner: tuple["Term", ...] = ()


class Choice(NamedTuple):
    """The header, cookie and query parameter by which a request names its variant.

    Attributes:
        always: values for the first variant.
        never: values for stable.
        trusted: whether only trusted peers, and signed headers, choose.
    """

    header: bytes | None = None
    cookie: bytes | None = None
    query: bytes | None = None
    always: frozenset[bytes] = frozenset((b"always",))
    never: frozenset[bytes] = frozenset((b"never",))
    trusted: bool = False


class AnonymousCookie(NamedTuple):
    """The cookie with a random id, for requests without another key."""

    name: str = "cmw_id"
    max_age: int = 34_560_000
    domain: str | None = None
    path: str = "/"
    same_site: Literal["Lax", "Strict", "None"] = "Lax"
    consent: str | None = None


class Layer(NamedTuple):
    """The slice of a layer that a release may use: slots from `start` up to but without `end`."""

    name: str
    start: int
    end: int


class Holdout(NamedTuple):
    """Users who get no gray at all: the first slots of a hash of their own."""

    name: str
    slots: int


class FallbackBudget(NamedTuple):
    """Limit of the fallbacks in the last `interval` seconds: the larger of `min`, and `percent` of all requests."""

    percent: int = 20
    min: int = 10
    interval: int = 10


DEFAULT_BUDGET = FallbackBudget()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """When stable answers in place of a failing gray variant.

    Attributes:
        kinds: the failures that count, besides statuses.
        statuses: the statuses that count.
        gray_timeout_ms: time for gray up to its response head; None for the smaller of 1,500 and half of the timeout of
            its Mapping, 0 for no limit of its own.
        methods: what may be sent a second time.
        body: the longest request body, in bytes, that is sent a second time.
    """

    kinds: frozenset[FailureKind] = frozenset(("connect", "timeout", "reset", "overload"))
    statuses: frozenset[int] = frozenset((502, 503, 504))
    gray_timeout_ms: int | None = None
    methods: frozenset[str] = frozenset(("GET", "HEAD", "OPTIONS"))
    body: int = 0
    budget: FallbackBudget = DEFAULT_BUDGET


class Propagate(NamedTuple):
    """Which hosts are told of the decision, and how."""

    hosts: tuple[str, ...] = ()
    header: bytes = b"x-canary-lane"
    baggage: bool = False
    format: Literal["lane", "tag"] = "lane"


DEFAULT_RESPONSE_HEADER = b"x-canary-variant"
DEFAULT_COOKIE = AnonymousCookie()
NO_CHOICE = Choice()
DEFAULT_PROPAGATE = Propagate()


@dataclass(frozen=True, slots=True, kw_only=True)
class GrayRelease:
    """A validated GrayRelease.

    Attributes:
        enabled: False sends everybody to stable.
        stable: names of the Mappings of the stable side; without any, those of a group that no variant names.
        stable_local: the wrapped app is the stable side.
        lane: the name under which a decision travels.
        sticky: the first that is present gives the key.
        missing: what a request without a key gets.
        never: ids that are always stable.
        never_file: a file with more of them.
        audience: all of these must hold for a user to be drawn into a variant.
        drain: who is in a variant stays in it when its weight becomes 0.
        fallback: None for no safety net.
        revision: what is released, as an image tag.
        plan: the steps by which its weight grows, until then 0; None where the percents are written.
        groups: of a release with a plan, what the Mappings match that it governs, see `Mapping.key`.
        response_header: the header that names the variant on every answer, None for none.
        file, line: where it is written; not part of equality.
        lines: the line of every attribute.
    """

    name: str
    variants: tuple[ReleaseVariant, ...]
    hash: HashFunction
    lane: str
    namespace: str = "default"
    enabled: bool = True
    stable: tuple[str, ...] = ()
    stable_local: bool = False
    sticky: tuple[KeyExpression, ...] = ()
    missing: Missing = "cookie"
    cookie: AnonymousCookie = DEFAULT_COOKIE
    choice: Choice = NO_CHOICE
    never: IdList = NO_IDS
    never_file: str | None = None
    layer: Layer | None = None
    holdout: Holdout | None = None
    audience: tuple[Term, ...] = ()
    drain: bool = False
    fallback: Fallback | None = None
    propagate: Propagate = DEFAULT_PROPAGATE
    revision: str | None = None
    plan: Plan | None = None
    groups: tuple[tuple[object, ...], ...] = ()
    response_header: bytes | None = DEFAULT_RESPONSE_HEADER
    file: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)
    lines: Dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def gray_mappings(self) -> tuple[str, ...]:
        """The names of all Mappings that serve a variant."""
        return tuple(name for variant in self.variants for name in variant.mappings)

    def line_of(self, attribute: str) -> int:
        """The line of an attribute, or of the nearest one around it."""
        parts = attribute.split(".")
        paths = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        return next((self.lines[path] for path in paths if path in self.lines), self.line)

    def moved(self, lines: int) -> "GrayRelease":
        """The same release, `lines` lines further down."""
        moved = {name: line + lines for name, line in self.lines.items()}
        return replace(self, line=self.line + lines, lines=moved)

    def __str__(self) -> str:
        return self.name


class Releases(NamedTuple):
    """The releases of a source.

    Attributes:
        in_force: in the order in which they are written.
        held_back: names of Mappings that get nothing, because the release that names them is in error.
    """

    in_force: tuple[GrayRelease, ...] = ()
    held_back: frozenset[str] = frozenset()


NO_RELEASES = Releases()
