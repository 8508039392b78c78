"""Validation of a document against a pydantic model: all errors at once, each with attribute and line."""

from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from canary_mw.config.ambassador.schema import TEXT_ATTRIBUTES, Strict
from canary_mw.config.document import Diagnostic, Severity
from canary_mw.config.resource import Resource

M = TypeVar("M", bound=Strict)


class Report:
    """Collects the diagnostics of one document.

    Args:
        prefix: path before the names of attributes in the document, "config." in a Module.
    """

    def __init__(self, resource: Resource, file: str, prefix: str = "") -> None:
        self.resource = resource
        self.file = file
        self.prefix = prefix
        self.diagnostics: list[Diagnostic] = []

    def __call__(
        self, severity: Severity, code: str, message: str, *, attribute: str = "", hint: str | None = None
    ) -> None:
        """Add a diagnostic; its line is that of the attribute, or of the document."""
        resource, lines = self.resource, self.resource.lines
        path = self.prefix + attribute
        parts = path.split(".")
        candidates = (lines.get(name) for name in (path, ".".join(parts[:2]), parts[0]))
        line = next((each for each in candidates if each), resource.line)
        name = resource.name
        text = f"{resource.kind} {name}: {message}" if name and resource.kind else message
        mapping = name if resource.kind == "Mapping" else None
        self.diagnostics.append(
            Diagnostic(
                severity=severity, code=code, message=text, file=self.file, line=line, mapping=mapping, hint=hint
            )
        )


def validate(kind: type[M], spec: dict[str, Any], report: Report, *, unsupported: Collection[str] = ()) -> M | None:
    """The typed attributes; None if any is wrong, with an error reported for each.

    Args:
        unsupported: known names without effect yet; each gets a notice. Where it is not empty, as for a Module, unknown
            names get a notice too; otherwise a warning.
    """
    spec = {name: value for name, value in spec.items() if value != "" or name not in TEXT_ATTRIBUTES}
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
    _report_unread(model, report, unsupported)
    return model


def _report_unread(model: Strict, report: Report, unsupported: Collection[str], path: str = "") -> None:
    """Report attributes that are written but not read, nested ones too."""
    for name in model.model_extra or {}:
        if name in unsupported:
            report("notice", "not-supported", f"{path}{name} is not supported yet: ignored", attribute=path + name)
            continue
        hint = did_you_mean(name, [*type(model).model_fields, *unsupported])
        severity: Severity = "notice" if unsupported else "warning"
        report(severity, "unknown-field", f"unknown field {path}{name} is ignored", attribute=path + name, hint=hint)
    for name in model.model_fields_set:
        for submodel in _submodels(getattr(model, name)):
            _report_unread(submodel, report, (), f"{path}{name}.")


def _submodels(value: Any) -> list[Strict]:
    if isinstance(value, Strict):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in values if isinstance(item, Strict)]


def _by_attribute(errors: list[ErrorDetails]) -> Iterator[tuple[str, str, str | None]]:
    """Path, message and hint for each attribute; pydantic reports a union once for each of its members."""
    expected: dict[str, list[str]] = {}
    given: dict[str, Any] = {}
    for error in errors:
        path = [str(part) for part in error["loc"] if not (isinstance(part, str) and part in _UNION_MEMBERS)]
        attribute = ".".join(path)
        if error["type"] == "missing" and len(path) == 1:
            yield attribute, f"{attribute} is missing", None
            continue
        expected.setdefault(attribute, []).append(
            _EXPECTED.get(error["type"], error["msg"].removeprefix("Input should be "))
        )
        given[attribute] = error["input"]
    for attribute, texts in expected.items():
        value = given[attribute]
        hint = "put it in quotes" if "a text" in texts and isinstance(value, bool | int | float) else None
        yield attribute, f"{attribute} must be {' or '.join(dict.fromkeys(texts))}, not {_format_value(value)}", hint


# Names that pydantic adds to the location of an error for the members of a union.
_UNION_MEMBERS = frozenset(("str", "bool", "list[str]", "AddedHeader", "LegacyCors", "Cors"))
_EXPECTED = {
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


def _format_value(value: Any) -> str:
    kind = {str: "the text", bool: "the boolean", int: "the number", float: "the number", list: "the list"}
    text = repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return f"{kind.get(type(value), 'the map')} {text if len(text) < 60 else text[:57] + '...'}"


def did_you_mean(name: str | None, known: Sequence[str]) -> str | None:
    """A hint with the known name that is closest to a misspelt one, None without a close one."""
    found = get_close_matches((name or "").lower(), [k.lower() for k in known], n=1)
    return f"did you mean {next(k for k in known if k.lower() == found[0])}?" if found else None
