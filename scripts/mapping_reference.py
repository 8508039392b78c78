"""Write docs/mapping-reference.md from the models and the descriptions; `--check` only reports whether it is current.

Run it after an attribute has changed: python scripts/mapping_reference.py
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from canary_mw.config.ambassador.module import UNSUPPORTED, ModuleConfig
from canary_mw.config.ambassador.schema import LegacyMapping, MappingV3
from canary_mw.config.ambassador.tls_context import TLSContext
from canary_mw.config.reference.attribute_doc import AttributeDoc
from canary_mw.config.reference.mapping import SECTIONS
from canary_mw.config.reference.module import KEYS
from canary_mw.config.reference.tls_context import TLS_CONTEXT_ATTRIBUTES

PAGE = Path(__file__).parent.parent / "docs" / "mapping-reference.md"

INTRODUCTION = """\
# Mappings and the Module: reference

This page is generated from the models that read the documents: `python scripts/mapping_reference.py`.

`canary-mw schema > rules.schema.json` writes the same as JSON Schema; an editor with a YAML language server completes
and checks rules by it, with this line at the top of the file:

```yaml
# yaml-language-server: $schema=rules.schema.json
```

A document has an `apiVersion` (`getambassador.io/v0`, `v1`, `v2` or `v3alpha1`; the group may also be `ambassador`), a
`kind`, a `name`, and its attributes at the top level (flat) or below `spec` (as a CRD, with the name in `metadata`).
Mappings that match the same requests form a group. Types are those of v3alpha1, followed by what v0 to v2 allow in
addition. Attributes have the same meaning as in Emissary, except where the last column says otherwise;
[differences.md](differences.md) lists all differences. The other kinds: [kinds-reference.md](kinds-reference.md).

Values without quotes are read by the rules of Kubernetes and Helm, which are those of YAML in Go. `20.0`, `1.2e+06`,
`1e4`, `08` (8), `010` (octal, 8), `0o20`, `0x10`, `0b101` and `3_000` are whole numbers; `12:30` and `2020-01-01` are
texts; `yes`, `on`, `true` and their opposites are booleans. `y` and `n` are booleans where only a boolean is allowed,
elsewhere texts.
"""

LABELS = """\
## Labels

| `metadata_labels`, or `metadata.labels` | meaning |
|---|---|
| `variant: gray`, `variant: stable` | sets the role, which is otherwise derived from weights and conditions |
| `shadow_writes: allow` | the shadow gets copies of requests with all methods; `check` warns |
"""


def type_of(annotation: Any) -> str:
    """The name of a type on the page."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_of(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(type_of(each) for each in arguments if each is not NoneType))
    if origin is Annotated:
        return type_of(arguments[0])
    if origin is Literal:
        return "one of " + ", ".join(f"`{each}`" for each in arguments)
    if origin is list:
        return f"list of {type_of(arguments[0])}"
    if origin is dict:
        return f"map of {type_of(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        # Emissary's conversion writes those that begin with v2.
        fields = annotation.model_fields.items()
        names = [field.alias or name for name, field in fields if not name.startswith("v2")]
        return "{" + ", ".join(f"`{name}`" for name in names) + "}"
    return {str: "text", int: "whole number", bool: "true or false"}.get(annotation, "anything")


def type_in(name: str, *models: type[BaseModel]) -> str:
    """The type of an attribute, with the types that further models allow in addition."""
    first, *more = dict.fromkeys(type_of(m.model_fields[name].annotation) for m in models if name in m.model_fields)
    return first + "".join(f" (v0 to v2: {each})" for each in more)


def default_of(name: str, text: AttributeDoc, *models: type[BaseModel]) -> str:
    """The default in words, or as YAML."""
    field = next(m.model_fields[name] for m in models if name in m.model_fields)
    if text.default:
        return text.default
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ({}, []):
        return "none"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


def row(name: str, text: AttributeDoc, *models: type[BaseModel]) -> str:
    """One row of a table."""
    only = [label for label, model in (("v3alpha1", MappingV3), ("v0 to v2", LegacyMapping)) if model in models]
    where = [label for label in only if name in (MappingV3 if label == "v3alpha1" else LegacyMapping).model_fields]
    versions = f" ({where[0]} only)" if len(only) == 2 and len(where) == 1 else ""
    differs = text.differs or "no"
    cells = (f"`{name}`{versions}", type_in(name, *models), default_of(name, text, *models), text.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in (*cells, f"`{text.example}`", differs)) + " |"


def page() -> str:
    """The text of the page."""
    return "\n".join([INTRODUCTION, *mappings(), LABELS, *module(), *tls_context()])


def table_head(title: str, what: str) -> Iterator[str]:
    """Heading and header row of a table."""
    yield f"## {title}\n"
    yield f"| {what} | type | default | meaning | example | differs from Emissary |\n|---|---|---|---|---|---|"


def mappings() -> Iterator[str]:
    """The attributes of a Mapping, a table for each section."""
    for title, section in SECTIONS.items():
        yield from table_head(title, "attribute")
        yield "\n".join(row(name, text, MappingV3, LegacyMapping) for name, text in section.items()) + "\n"


def module() -> Iterator[str]:
    """The keys of the Module."""
    yield from table_head("The Module `ambassador`", "key of `config`")
    yield "\n".join(row(name, text, ModuleConfig) for name, text in KEYS.items()) + "\n"
    names = ", ".join(f"`{name}`" for name in sorted(UNSUPPORTED))
    yield f"Known, not supported yet and ignored with a notice: {names}.\n"


def tls_context() -> Iterator[str]:
    """The attributes of a TLSContext."""
    yield from table_head("TLSContext", "attribute")
    yield "\n".join(row(name, text, TLSContext) for name, text in TLS_CONTEXT_ATTRIBUTES.items()) + "\n"


def write(path: Path, text: str) -> int:
    """Write a page; with `--check` compare it, and return 1 if it is another one."""
    if "--check" not in sys.argv[1:]:
        path.write_text(text, encoding="utf-8")
        return 0
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return 0
    print(f"{path} is out of date: run python scripts/{path.stem.replace('-', '_')}.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(write(PAGE, page()))
