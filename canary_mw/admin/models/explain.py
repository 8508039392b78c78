"""The answer about what would happen to a request."""

from typing import Any, TypedDict

from canary_mw.admin.models.common import Answer, Place


class ExplainRequest(TypedDict):
    """The request as it was asked for, by the fields of the form.

    Attributes:
        url: absolute, or a path.
        headers: a line each, as curl shows them.
        cookies: value of a Cookie header.
        user: JSON, or empty.
        session: JSON, or empty.
    """

    method: str
    url: str
    client: str
    headers: str
    cookies: str
    user: str
    session: str


class Considered(TypedDict):
    """A group whose prefix and host may match.

    Attributes:
        why: the tests that it passed, or the first test that failed.
    """

    group: str
    matched: bool
    why: str


class ReleaseDecision(TypedDict):
    """What a GrayRelease decides.

    Attributes:
        variant: null where the request alone does not settle it.
        reason: the step that decides.
        key: the expression that gave the key, never its value.
        slot: of 1,000,000; null where the request alone does not settle it.
        cookie: "set" where the answer sets the cookie of the release.
        ranges: lists of [low, high) in slots, by variant.
        shares: percent by variant, and "stable".
    """

    name: str
    variant: str | None
    reason: str
    key: str | None
    slot: int | None
    cookie: str | None
    ranges: dict[str, list[list[int]]]
    shares: dict[str, float]


class ExplainStep(TypedDict):
    """A step of the decision.

    Attributes:
        applies: whether it matched, took the request or decided.
        reached: false for steps behind the one that decided.
        source: where the rule is written; null for a step of a release.
        release: the GrayRelease that governs the rule.
    """

    applies: bool
    reached: bool
    title: str
    text: str
    source: Place | None
    release: str | None


class Position(TypedDict):
    """Where the key lies.

    Attributes:
        percent: slot / 10,000.
        text: as "User 42 lies at 12.4; gray has 0 to 20".
    """

    slot: int
    percent: float
    text: str


class Sent(TypedDict):
    """What is sent upstream.

    Attributes:
        to: method and URL.
        path: before the rewrite.
        rewritten: after it.
        added: headers as [name, value].
        changed: headers as [name, value].
        removed: names of headers.
        timeout: in words.
        copy: where a copy goes, in words; null without one.
    """

    to: str
    path: str
    rewritten: str
    added: list[list[str]]
    changed: list[list[str]]
    removed: list[str]
    timeout: str
    copy: str | None


class Other(TypedDict):
    """What could happen to others on this URL; the percents add up to 100.

    Attributes:
        service: null for the wrapped app.
        status: of an answer of canary-mw itself; null else.
        when: as "key in 0 – 20".
    """

    service: str | None
    mapping: str | None
    variant: str
    gray: bool
    percent: float
    status: int | None
    when: str


class Explained(TypedDict):
    """What `canary-mw explain --batch` answers, and the same for people.

    Attributes:
        candidates: possible outcomes, each with its `weight_percent`.
        considered: groups in the order in which they are tried.
        sentence: the answer.
        details: for how long it holds.
        variant: "stable" or the name of a variant; null where each request is drawn.
        gray: whether a gray version answers; null where each request is drawn.
        position: null where no key decides.
        asks: which services are asked before it goes on, and about what; of all outcomes.
        sent: of the outcome; null where nothing is sent, or where it depends on the draw.
    """

    candidates: list[dict[str, Any]]
    considered: list[Considered]
    release: ReleaseDecision | None
    sentence: str
    details: str
    variant: str | None
    gray: bool | None
    steps: list[ExplainStep]
    position: Position | None
    asks: list[str]
    sent: Sent | None
    others: list[Other]


class ExplainAnswer(Answer, Explained):
    """What would happen to a request. Nothing is sent."""

    request: ExplainRequest


class ExplainForm(Answer):
    """The form without an answer.

    Attributes:
        error: why there is no answer; null where nothing was asked yet.
    """

    request: ExplainRequest
    error: str | None
