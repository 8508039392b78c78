"""Validation of a document against a pydantic model: all errors at once, each with attribute and line."""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from canary_mw.config.ambassador.schema import TEXT_ATTRIBUTES, Exact, Strict
from canary_mw.config.document import Diagnostic, Severity
from canary_mw.config.resource import Resource
from canary_mw.config.wording import did_you_mean, in_words, kind_in_words, odd_key_in_words
from canary_mw.config.yaml.scalars import OddKey

M = TypeVar("M", bound=Strict)


class _Found(NamedTuple):
    """An error at one attribute."""

    attribute: str
    message: str
    hint: str | None = None


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
        candidates = (lines.get(".".join(parts[:length])) for length in range(len(parts), 0, -1))
        line = next((each for each in candidates if each), resource.line)
        name = resource.name
        text = f"{resource.kind} {name}: {message}" if name and resource.kind else message
        mapping = name if resource.kind == "Mapping" else None
        self.diagnostics.append(
            Diagnostic(
                severity=severity, code=code, message=text, file=self.file, line=line, mapping=mapping, hint=hint
            )
        )


def validate(
    kind: type[M],
    spec: dict[str, Any],
    report: Report,
    *,
    unsupported: Collection[str] = (),
    misspelt: Callable[[str], str | None] = lambda name: None,
) -> M | None:
    """The typed attributes; None if any is wrong, with an error reported for each.

    Args:
        misspelt: the name that an unknown one is an error for, because it is probably meant.
        unsupported: known names without effect yet; each gets a notice. Where it is not empty, as for a Module, unknown
            names get a notice too; otherwise a warning.
    """
    spec = {name: value for name, value in spec.items() if value != "" or name not in TEXT_ATTRIBUTES}
    nulls = [name for name, value in spec.items() if value is None]
    for name in nulls:
        report("error", "wrong-type", f"{name} is null", attribute=name, hint="leave it out instead")
    errors = _report_misspelt(spec.keys() - kind.model_fields.keys(), report, misspelt)
    if nulls or _report_odd_keys(kind, spec, report):
        return None
    try:
        model = kind.model_validate(spec)
    except ValidationError as exc:
        for found in _by_attribute(spec, exc.errors(include_url=False, include_context=False)):
            report("error", "wrong-type", found.message, attribute=found.attribute, hint=found.hint)
        return None
    wrong = _report_unread(model, report, unsupported, known=errors)
    return None if errors or wrong else model


def _report_odd_keys(kind: type[Strict], spec: dict[str, Any], report: Report) -> bool:
    """Report keys that are no texts; what may hold anything may have them."""
    typed = [name for name, info in kind.model_fields.items() if name in spec and info.annotation is not Any]
    found = [each for name in typed for each in _odd_keys(spec[name], name)]
    for path, key in found:
        message, hint = odd_key_in_words(key)
        report("error", "bad-key", f"{path.partition('.')[0]}: {message}", attribute=path, hint=hint)
    return bool(found)


def _report_misspelt(
    unknown: Collection[str], report: Report, misspelt: Callable[[str], str | None]
) -> Collection[str]:
    """Report the misspelt names as errors, and return them."""
    meant = {name: found for name in sorted(unknown) if (found := misspelt(name))}
    for name, found in meant.items():
        text = f"unknown field {name}: it looks like {found}"
        if report.resource.kind == "Mapping":
            text += f", and without {found} the Mapping takes other requests"
        report("error", "unknown-field", text, attribute=name, hint=f"did you mean {found}?")
    return meant.keys()


def _report_unread(
    model: Strict, report: Report, unsupported: Collection[str], path: str = "", *, known: Collection[str] = ()
) -> bool:
    """Report attributes that are written but not read, nested ones too, but for those that are `known`.

    Returns:
        whether one of them is an error.
    """
    wrong = False
    for name in (name for name in model.model_extra or {} if name not in known):
        if name in unsupported:
            report("notice", "not-supported", f"{path}{name} is not supported yet: ignored", attribute=path + name)
            continue
        wrong |= _report_unknown(model, report, unsupported, path + name, name)
    for name in model.model_fields_set:
        value = getattr(model, name)
        if value is None and isinstance(model, Exact):
            wrong = True
            text = f"{_written([*path.split('.')[:-1], name])} is null"
            report("error", "wrong-type", text, attribute=path + name, hint="leave it out, or write a value")
        for part, submodel in _submodels(value):
            wrong |= _report_unread(submodel, report, (), f"{path}{name}.{part}")
    return wrong


def _report_unknown(model: Strict, report: Report, unsupported: Collection[str], attribute: str, name: str) -> bool:
    hint = did_you_mean(name, [*type(model).model_fields, *unsupported])
    severity: Severity = "error" if isinstance(model, Exact) else "notice" if unsupported else "warning"
    what = f"unknown field {_written(attribute.split('.'))}"
    if severity == "error":
        hint = hint or f"known are {', '.join(type(model).model_fields)}"
    report(
        severity, "unknown-field", what if severity == "error" else f"{what} is ignored", attribute=attribute, hint=hint
    )
    return severity == "error"


def _submodels(value: Any) -> Iterator[tuple[str, Strict]]:
    """The models in a value, each with the rest of its path."""
    if isinstance(value, Strict):
        yield "", value
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    yield from ((f"{part}.", item) for part, item in parts if isinstance(item, Strict))


def _by_attribute(spec: dict[str, Any], errors: list[ErrorDetails]) -> Iterator[_Found]:
    """A finding for each attribute; pydantic reports a union once for each of its members."""
    expected: dict[tuple[str | int, ...], list[str]] = {}
    given: dict[tuple[str | int, ...], Any] = {}
    for error in errors:
        path = _path_in(spec, error["loc"])
        expected.setdefault(path, []).append(
            _EXPECTED.get(error["type"], error["msg"].removeprefix("Input should be "))
        )
        given[path] = error["input"]
    # A value that fits one member of a union but for a part of it is told by that part alone.
    parts = {path[:length] for path in expected for length in range(1, len(path))}
    for path, texts in expected.items():
        if path in parts:
            continue
        attribute, name, value = ".".join(map(str, path)), _written(path), given[path]
        if _MISSING in texts:
            yield _Found(attribute, f"{name} is missing")
        elif value is None:
            yield _Found(attribute, f"{name} is null", "leave it out instead")
        else:
            hint = "put it in quotes" if "a text" in texts and isinstance(value, bool | int | float) else None
            if "a number" in texts:
                texts = [text for text in texts if text != "a whole number"]
                hint = "take it out of its quotes" if isinstance(value, str) else hint
            wanted = " or ".join(dict.fromkeys(texts))
            said = f"{kind_in_words(value)} that is written" if path[0] in _SECRETS else in_words(value)
            yield _Found(attribute, f"{name} must be {wanted}, not {said}", hint)


def _path_in(spec: dict[str, Any], location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The location of an error without the names that pydantic adds for the members of a union."""
    value: Any = spec
    path: list[str | int] = []
    for part in location:
        if _is_union_member(part) and not (isinstance(value, dict) and part in value):
            continue
        path.append(part)
        try:
            value = value[part]
        except (LookupError, TypeError):
            value = None
    return tuple(path)


def _is_union_member(part: str | int) -> bool:
    return isinstance(part, str) and (part in _UNION_MEMBERS or _UNION_SHAPE.match(part) is not None)


def _written(path: Sequence[str | int]) -> str:
    """A path as Kubernetes writes it: `cors.origins[0]`."""
    parts = (f"[{part}]" if isinstance(part, int) or part.isdecimal() else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def _odd_keys(value: Any, path: str) -> Iterator[tuple[str, OddKey]]:
    """Path and text of each key in a value that is no text."""
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, OddKey):
                yield f"{path}.{key}", key
            yield from _odd_keys(item, f"{path}.{key}")
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _odd_keys(item, f"{path}.{position}")


# Names that pydantic adds to the location of an error for the members of a union.
_UNION_MEMBERS = frozenset(
    ("str", "int", "float", "bool", "AddedHeader", "LegacyCors", "Cors", "HashModel", "IdsModel", "VariantModel")
)
_UNION_SHAPE = re.compile(r"(dict|list|union|literal)\[")
_MISSING = "given"
# Attributes whose values no message may show.
_SECRETS = frozenset(("add_auth_headers",))
_EXPECTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a map",
    "model_type": "a map",
    "model_attributes_type": "a map",
    "missing": _MISSING,
}
