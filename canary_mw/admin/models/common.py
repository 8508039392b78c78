"""What all answers of the admin port have.

Times are UTC in ISO 8601 with milliseconds. Percents are 0 to 100; rates and shares are 0 to 1.
"""

from typing import TypedDict


class Scope(TypedDict):
    """Whose figures an answer holds.

    Attributes:
        pod: name of the pod or host.
        workers: workers that are alive.
        reporting: workers whose figures are in the answer.
        complete: whether the figures are those of all workers.
        shared: whether several workers may add up; false where the figures are those of one process only.
        silent: process ids of workers that have not reported for a while.
        behind: process ids of workers that are not on the newest rules.
    """

    pod: str
    workers: int
    reporting: int
    complete: bool
    shared: bool
    silent: list[int]
    behind: list[int]


class InForce(TypedDict):
    """The rules in force.

    Attributes:
        generation: number of tables in force so far, as the worker that has seen the most counts them; 0 before the
            first good load.
        since: when it came into force on the last of them.
        workers_on_it: workers that have it in force.
        problems: number of findings about the rules, as the page of rules lists them.
        error: why the newest state of the source is not in force, or only in part.
    """

    generation: int
    since: str | None
    workers_on_it: int
    problems: int
    error: str | None


class Frame(TypedDict):
    """What every answer has.

    Attributes:
        now: when the answer was made.
        version: of canary-mw.
    """

    now: str
    version: str
    scope: Scope


class Answer(Frame):
    """What answers have that list no rules.

    Attributes:
        rules: the rules in force.
    """

    rules: InForce


class ListingAnswer(Frame):
    """What answers have whose `rules` are a list.

    Attributes:
        in_force: the rules in force.
    """

    in_force: InForce


class Place(TypedDict):
    """A line of a file of rules.

    Attributes:
        file: as the source names it.
        line: 1-based; null where all of the file is meant.
    """

    file: str
    line: int | None


class ExcerptLine(TypedDict):
    """A line of an excerpt.

    Attributes:
        line: its number, 1-based.
        marked: whether the finding is about it.
    """

    line: int
    text: str
    marked: bool


class Problem(TypedDict):
    """What the answer is instead of the one asked for.

    Attributes:
        code: stable, lower-case, words joined by "-".
        message: what is wrong, and what to do.
    """

    code: str
    message: str


class ErrorAnswer(TypedDict):
    """The body of every answer with a status of 400 or above."""

    error: Problem
