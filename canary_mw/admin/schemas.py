"""JSON schemas of the types in `admin.models`: fields by their annotations, descriptions by their docstrings."""

import inspect
import re
import sys
from types import UnionType
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_FIELD = re.compile(r"^ {4}(\w+): (.+?)(?=^ {4}\w|\Z)", re.MULTILINE | re.DOTALL)


def schema_of(annotation: Any, components: dict[str, Any]) -> dict[str, Any]:
    """The schema of an annotation; what it refers to is added to `components`."""
    if annotation is Any:
        return {}
    if is_typeddict(annotation):
        return _reference(annotation, components)
    if annotation in _PLAIN:
        return {"type": _PLAIN[annotation]}
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": schema_of(arguments[0], components)}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1], components)}
    if origin is NotRequired:
        return schema_of(arguments[0], components)
    assert origin in (Union, UnionType), f"no schema for {annotation}"
    return {"anyOf": [schema_of(each, components) for each in arguments]}


def _reference(model: Any, components: dict[str, Any]) -> dict[str, Any]:
    """A reference to the schema of a TypedDict, which is made once."""
    name = model.__name__
    if name not in components:
        components[name] = {}
        components[name] = _object(model, components)
    return {"$ref": f"#/components/schemas/{name}"}


def _object(model: Any, components: dict[str, Any]) -> dict[str, Any]:
    hints, texts = get_type_hints(model), _descriptions(model)
    properties = {}
    for name, hint in hints.items():
        described = {"description": texts[name]} if name in texts else {}
        properties[name] = {**schema_of(hint, components), **described}
    return {
        "type": "object",
        "description": _summary(model),
        "properties": properties,
        "required": sorted(model.__required_keys__),
        "additionalProperties": False,
    }


def _summary(model: Any) -> str:
    return " ".join((inspect.getdoc(model) or "").partition("\n\nAttributes:")[0].split())


def _descriptions(model: Any) -> dict[str, str]:
    """Descriptions of fields, also of those that it has from models that it extends."""
    found: dict[str, str] = {}
    for base in _extended(model):
        found |= _descriptions(base)
    listed = (inspect.getdoc(model) or "").partition("\n\nAttributes:\n")[2]
    return found | {name: " ".join(text.split()) for name, text in _FIELD.findall(listed)}


def _extended(model: Any) -> list[Any]:
    """The models that one extends. Python 3.11 does not keep them, so they are told by their fields."""
    fields = model.__annotations__.items()
    named = vars(sys.modules[model.__module__]).values()
    return [each for each in named if is_typeddict(each) and each.__annotations__.items() < fields]
