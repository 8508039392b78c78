"""The answer about rules."""

from typing import Literal, TypedDict

from canary_mw.admin.models.common import ExcerptLine, ListingAnswer, Place

AskedState = Literal["asked", "failing", "in_error", "local"]
RuleState = Literal["live", "last_good", "never_reached", "ignored"]


class RuleProblem(TypedDict):
    """A finding about the rules.

    Attributes:
        code: stable, as `canary-mw check` prints it.
        mapping: name of the Mapping or GrayRelease that it is about.
        label: what is live, as "Not live: last good kept".
        meanwhile: what goes on answering.
        excerpt: the lines around it; empty where the text is not known.
    """

    severity: Literal["error", "warning", "notice"]
    file: str
    line: int | None
    mapping: str | None
    code: str
    message: str
    hint: str | None
    label: str
    meanwhile: str
    excerpt: list[ExcerptLine]


class Member(TypedDict):
    """A Mapping of a rule.

    Attributes:
        variant: its name in a GrayRelease, else "stable" or "gray".
        gray: whether it is a gray version.
        local: whether the wrapped app answers.
        copy: whether it is a shadow, which gets copies.
        percent: of the requests of the rule; of the copies for a shadow.
    """

    mapping: str
    namespace: str | None
    service: str
    variant: str
    gray: bool
    local: bool
    copy: bool
    percent: float
    file: str
    line: int | None


class Rule(TypedDict):
    """Mappings that match the same requests.

    Attributes:
        order: 1-based, in the order in which rules are tried; null for what is in error and never was live.
        name: the names of its Mappings.
        host: null for any.
        kind: how the path is compared.
        conditions: methods, headers and query parameters, as texts.
        label: the state in words, as "Never reached".
        why: why it is in that state; empty where it is live.
        release: the GrayRelease that governs it.
        source: where its Mappings are written.
        requests: of the last 5 minutes; null where they are not counted.
        ever: requests since the start; null where they are not counted.
        last_hit: when it last took a request, as far as is known.
    """

    order: int | None
    name: str
    host: str | None
    prefix: str
    kind: str
    conditions: list[str]
    precedence: int
    members: list[Member]
    state: RuleState
    label: str
    why: str
    release: str | None
    source: list[Place]
    requests: int | None
    ever: int | None
    last_hit: str | None


class AskedService(TypedDict):
    """What is asked about requests before they go on; counts are of the last 5 minutes.

    Attributes:
        kind: of its document.
        label: the state in words.
        asked: how often.
        denied: how often it refused.
        failed: how often it did not answer in time, or with a status of 500 and above.
        mean_ms: of an answer on average; null where there was none.
    """

    kind: str
    name: str
    services: list[str]
    state: AskedState
    label: str
    asked: int
    denied: int
    failed: int
    mean_ms: float | None


class RulesFilter(TypedDict):
    """What was asked for."""

    q: str
    state: RuleState | None
    release: str | None
    limit: int
    after: int


class RulesAnswer(ListingAnswer):
    """The rules in the order in which they are tried, and what is wrong with them.

    Attributes:
        finding: as "212 of 214 rules are live as written."
        summary: what the others are, and where the rules come from.
        source_name: where the rules come from.
        total: number of rules.
        live: number of rules that are live as written.
        found: number of rules that the filter lets through.
        next: `after` of the next page; null on the last one.
        releases: names of all releases, for the filter.
        problems: all, whatever the filter is.
        asked: what is asked about requests before they go on.
    """

    finding: str
    summary: str
    source_name: str
    total: int
    live: int
    found: int
    filter: RulesFilter
    next: int | None
    releases: list[str]
    problems: list[RuleProblem]
    asked: list[AskedService]
    rules: list[Rule]
