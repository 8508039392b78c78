"""A document against a model of `schema.py`: everything that is wrong told at once, by attribute and line."""

from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from canary_mw.config.ambassador.schema import TEXTS, Strict
from canary_mw.config.document import Diagnostic, Severity
from canary_mw.config.resource import Resource

M = TypeVar("M", bound=Strict)


class Report:
    """Collects the findings about one document.

    Args:
        inside: what stands before the names of attributes in the document, "config." in a Module.
    """

    def __init__(self, resource: Resource, file: str, inside: str = "") -> None:
        self.resource = resource
        self.file = file
        self.inside = inside
        self.found: list[Diagnostic] = []

    def __call__(
        self, severity: Severity, code: str, message: str, *, attribute: str = "", hint: str | None = None
    ) -> None:
        """Add a finding; its line is that of the attribute, or of the document."""
        resource, lines = self.resource, self.resource.lines
        place = self.inside + attribute
        parts = place.split(".")
        found = (lines.get(name) for name in (place, ".".join(parts[:2]), parts[0]))
        line = next((each for each in found if each), resource.line)
        name = resource.name
        text = f"{resource.kind} {name}: {message}" if name and resource.kind else message
        mapping = name if resource.kind == "Mapping" else None
        self.found.append(
            Diagnostic(
                severity=severity, code=code, message=text, file=self.file, line=line, mapping=mapping, hint=hint
            )
        )


def validate(kind: type[M], spec: dict[str, Any], report: Report, *, unsupported: Collection[str] = ()) -> M | None:
    """The typed attributes, or None with an error for each that is wrong.

    Args:
        unsupported: names that are known and have no effect yet. Where there are such, as in a Module, unknown ones get
            a notice too; elsewhere a warning.
    """
    spec = {name: value for name, value in spec.items() if value != "" or name not in TEXTS}
    nulls = [name for name, value in spec.items() if value is None]
    for name in nulls:
        report("error", "wrong-type", f"{name} is null", attribute=name, hint="leave it out instead")
    if nulls:
        return None
    try:
        model = kind.model_validate(spec)
    except ValidationError as exc:
        for error in _by_attribute(exc.errors(include_url=False, include_context=False)):
            attribute, message, hint = error
            report("error", "wrong-type", message, attribute=attribute, hint=hint)
        return None
    _tell_unread(model, report, unsupported)
    return model


def _tell_unread(model: Strict, report: Report, unsupported: Collection[str], path: str = "") -> None:
    """Name what is written and not read, also inside of attributes."""
    for name in model.model_extra or {}:
        if name in unsupported:
            report("notice", "not-supported", f"{path}{name} is not supported yet: ignored", attribute=path + name)
            continue
        hint = did_you_mean(name, [*type(model).model_fields, *unsupported])
        severity: Severity = "notice" if unsupported else "warning"
        report(severity, "unknown-field", f"unknown field {path}{name} is ignored", attribute=path + name, hint=hint)
    for name in model.model_fields_set:
        for part in _parts(getattr(model, name)):
            _tell_unread(part, report, (), f"{path}{name}.")


def _parts(value: Any) -> list[Strict]:
    if isinstance(value, Strict):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in values if isinstance(item, Strict)]


def _by_attribute(errors: list[ErrorDetails]) -> Iterator[tuple[str, str, str | None]]:
    """One message for each attribute; a union reports one error for each of its arms."""
    wanted: dict[str, list[str]] = {}
    given: dict[str, Any] = {}
    for error in errors:
        path = [str(part) for part in error["loc"] if not (isinstance(part, str) and part in _ARMS)]
        attribute = ".".join(path)
        if error["type"] == "missing" and len(path) == 1:
            yield attribute, f"{attribute} is missing", None
            continue
        wanted.setdefault(attribute, []).append(
            _WANTED.get(error["type"], error["msg"].removeprefix("Input should be "))
        )
        given[attribute] = error["input"]
    for attribute, texts in wanted.items():
        value = given[attribute]
        hint = "put it in quotes" if "a text" in texts and isinstance(value, bool | int | float) else None
        yield attribute, f"{attribute} must be {' or '.join(dict.fromkeys(texts))}, not {_shown(value)}", hint


# Names that pydantic puts into the place of an error for the arm of a union.
_ARMS = frozenset(("str", "bool", "list[str]", "AddedHeader", "LegacyCors", "Cors"))
_WANTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a map",
    "model_type": "a map",
    "model_attributes_type": "a map",
    "missing": "given",
}


def _shown(value: Any) -> str:
    kind = {str: "the text", bool: "the boolean", int: "the number", float: "the number", list: "the list"}
    text = repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return f"{kind.get(type(value), 'the map')} {text if len(text) < 60 else text[:57] + '...'}"


def did_you_mean(name: str | None, known: Sequence[str]) -> str | None:
    found = get_close_matches((name or "").lower(), [k.lower() for k in known], n=1)
    return f"did you mean {next(k for k in known if k.lower() == found[0])}?" if found else None
