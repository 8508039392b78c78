"""Documents of one kind that are known by their names: what of them is in force."""

from collections.abc import Callable, Hashable
from collections.abc import Mapping as Dict
from typing import NamedTuple, TypeVar

from canary_mw.config.ambassador.ambassador_id import matches_ambassador_id
from canary_mw.config.ambassador.schema import Strict
from canary_mw.config.document import Diagnostic
from canary_mw.config.resource import Resource
from canary_mw.config.validation import Report, validate
from canary_mw.exceptions import MappingError

Name = tuple[str, str]  # namespace, name
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
M = TypeVar("M", bound=Strict)


class Source(NamedTuple):
    """What a source has.

    Attributes:
        resources: documents of all kinds, each with its file.
        complete: False if a document could not be read; then nothing is removed.
    """

    resources: list[tuple[Resource, str]]
    ambassador_id: str
    complete: bool


def read_policy(
    kind: type[M],
    resource: Resource,
    report: Report,
    read: Callable[[M], V],
    note: Callable[[M, Report], object],
) -> V | None:
    """The value of a document by its model; None for one in error, which is reported.

    Args:
        read: makes the value; raises MappingError with a message that begins with the attribute.
        note: reports what else is to be said of a document that is in force.
    """
    model = validate(kind, dict(resource.spec), report)
    if model is None:
        return None
    try:
        value = read(model)
    except MappingError as exc:
        report("error", "bad-value", exc.message, attribute=exc.message.partition(" ")[0], hint=exc.hint)
        return None
    note(model, report)
    return value


def full_name(resource: Resource) -> Name:
    """What a document is known by, with its namespace."""
    return resource.namespace, resource.name or ""


def read_named(
    kind: str,
    source: Source,
    key: Callable[[Resource], K],
    convert: Callable[[Resource, str, Report], V | None],
    last_good: Dict[K, V],
    diagnostics: list[Diagnostic],
) -> tuple[dict[K, V], set[K]]:
    """The values of the documents of a kind; one in error keeps its last good version.

    Args:
        convert: makes the value of a document of a file; None for one in error, which it reports.
        diagnostics: what is found is added to this list.

    Returns:
        The values, and the keys of what is in error.
    """
    found: dict[K, V] = {} if source.complete else {**last_good}
    seen, in_error = set[K](), set[K]()
    for resource, file in source.resources:
        if resource.kind != kind or not matches_ambassador_id(resource, source.ambassador_id):
            continue
        report = Report(resource, file)
        if not resource.name:
            report("error", "no-name", f"the {kind} has no name: it is left out")
            diagnostics += report.diagnostics
            continue
        name = key(resource)
        value = convert(resource, file, report)
        if value is None:
            in_error.add(name)
            value = last_good.get(name)
        if name in seen and value is not None:
            report("error", "duplicate-name", "it is defined again; this one counts", hint="give it a name of its own")
        seen.add(name)
        if value is not None:
            found[name] = value
        diagnostics += report.diagnostics
    return found, in_error
