"""The answers about traffic, endpoints, reloads and the process."""

from typing import Literal, TypedDict

from canary_mw.admin.models.common import Answer

Outcome = Literal["answered", "failed", "fallback"]


class Fallback(TypedDict):
    """Who answered when gray failed.

    Attributes:
        result: how gray failed, as in the metrics of the safety net.
    """

    service: str
    status: int | None
    result: str


class RecentRequest(TypedDict):
    """A request of the sample.

    Attributes:
        target: path, with the values of its query cut unless a rule looks at them.
        service: null for the wrapped app.
        variant: "stable", or the name of a variant; null where no rule matched.
        reason: as "sticky".
        because: the reason in words.
        detail: what belongs to it, as "x-user-id → 12.4".
        status: null without an answer.
        outcome: "failed" for a status of 500 or above, or none.
        explain: the query of the page Explain with the same fields.
    """

    at: str
    request_id: str
    method: str
    host: str | None
    target: str
    service: str | None
    mapping: str | None
    release: str | None
    variant: str | None
    gray: bool
    fallback: Fallback | None
    reason: str
    because: str
    detail: str
    status: int | None
    took_ms: float
    outcome: Outcome
    explain: str


class TrafficFilter(TypedDict):
    """What was asked for."""

    q: str
    release: str | None
    variant: str | None
    outcome: Outcome | None


class TrafficAnswer(Answer):
    """The last decisions, newest first.

    Attributes:
        sample: how they are chosen, in words.
        releases: names of all releases, for the filter.
    """

    sample: str
    filter: TrafficFilter
    releases: list[str]
    requests: list[RecentRequest]


class Endpoint(TypedDict):
    """An address of a service.

    Attributes:
        state: "healthy", "ejected", "unhealthy", "draining" or "unresolved".
        why: why it is not healthy; empty where it is.
        back_in_seconds: when an ejected one gets requests again.
        requests: of the window; null where they are not counted by address.
        connections: open ones of this process; null while it has none.
        waiting: requests that wait for one of them.
    """

    address: str
    state: Literal["healthy", "ejected", "unhealthy", "draining", "unresolved"]
    why: str
    back_in_seconds: float | None
    requests: int | None
    errors: int | None
    p95_ms: float | None
    connections: int | None
    waiting: int | None


class ServiceEndpoints(TypedDict):
    """The addresses of a service."""

    service: str
    endpoints: list[Endpoint]


class EndpointsAnswer(Answer):
    """The addresses of all services, as the worker that answers knows them.

    Attributes:
        finding: as "2 of 9 addresses get no requests."
    """

    finding: str
    services: list[ServiceEndpoints]


class DiffLine(TypedDict):
    """A line of a difference.

    Attributes:
        sign: "-", "+" or a blank.
        line: its number in the old text for "-", else in the new one.
    """

    sign: Literal["-", "+", " "]
    line: int | None
    text: str


class FileDiff(TypedDict):
    """What changed in a file."""

    file: str
    lines: list[DiffLine]


class Reload(TypedDict):
    """A change of the rules, or of what is wrong with them.

    Attributes:
        generation: of the table in force after it.
        read_at: when the first worker read it.
        live_at: when the last worker had it; null while one has not.
        live_on: workers that have had it.
        workers: workers that are alive.
        rules: number of Mappings in force.
        title: as "Rules 41 stay: a change was refused in part".
        text: what changed, in words.
        lines: the same, a line for each change.
        diff: by file; empty where the texts are not known.
        effect: what it does to recent requests, where that is known.
    """

    generation: int
    read_at: str
    live_at: str | None
    live_on: int
    workers: int
    rules: int
    added: int
    changed: int
    removed: int
    title: str
    text: str
    lines: list[str]
    diff: list[FileDiff]
    error: str | None
    effect: str | None


class ReloadsAnswer(Answer):
    """The last changes of the rules, newest first; 50 at most.

    Attributes:
        finding: as "Rules 42 are live everywhere."
        summary: since when, and how the source is followed.
    """

    finding: str
    summary: str
    reloads: list[Reload]


class Worker(TypedDict):
    """A process that serves.

    Attributes:
        heard: seconds since it last reported.
        state: "live", "behind" (not on the newest rules) or "silent".
    """

    pid: int
    started: str
    generation: int
    heard: float
    state: Literal["live", "behind", "silent"]


class EndedWorker(TypedDict):
    """A worker that is no more."""

    pid: int
    started: str
    ended: str
    how: str


class SettingInForce(TypedDict):
    """A setting.

    Attributes:
        value: as text; "set" for a secret.
        origin: "option", "environment", "argument" or "default".
        variable: its environment variable.
    """

    name: str
    value: str
    origin: str
    variable: str


class FiguresFolder(TypedDict):
    """Where the workers keep their figures.

    Attributes:
        folder: null where they are in the memory of this process only.
    """

    folder: str | None
    bytes: int


class Link(TypedDict):
    """An address of the admin port."""

    title: str
    path: str


class AboutAnswer(Answer):
    """The process, its workers and its settings."""

    pod: str
    python: str
    libraries: dict[str, str]
    started: str
    workers: list[Worker]
    ended: list[EndedWorker]
    figures: FiguresFolder
    settings: list[SettingInForce]
    links: list[Link]
