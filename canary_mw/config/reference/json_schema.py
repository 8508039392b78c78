"""The JSON Schema of the documents, for completion and checks in editors (draft 7, as YAML language servers use it).

It has the names, types and enumerations of the models. In one point it is stricter: an unknown attribute is an error in
an editor; for `canary-mw check` it is one only if it looks like an attribute that decides who matches. Documents of
other kinds are valid.
"""

from typing import Any

from pydantic import BaseModel

from canary_mw.config.ambassador.module import UNSUPPORTED, ModuleConfig
from canary_mw.config.ambassador.schema import LegacyMapping, MappingV3
from canary_mw.config.ambassador.tls_context import TLSContext
from canary_mw.config.canary.schema import GrayReleaseModel
from canary_mw.config.filters.auth_schema import AUTH_MODELS
from canary_mw.config.filters.rate_limit_service import LIMIT_MODELS
from canary_mw.config.foreign_objects import CANARY_GROUPS
from canary_mw.config.reference.attribute_doc import AttributeDoc
from canary_mw.config.reference.filters import AUTH_SERVICE_ATTRIBUTES, RATE_LIMIT_SERVICE_ATTRIBUTES
from canary_mw.config.reference.gray_release import GRAY_RELEASE_FIELDS
from canary_mw.config.reference.mapping import ATTRIBUTES
from canary_mw.config.reference.module import KEYS
from canary_mw.config.reference.services import (
    CONSUL_RESOLVER_ATTRIBUTES,
    LOG_SERVICE_ATTRIBUTES,
    TCP_MAPPING_ATTRIBUTES,
    TRACING_SERVICE_ATTRIBUTES,
)
from canary_mw.config.reference.tls_context import TLS_CONTEXT_ATTRIBUTES
from canary_mw.config.services.consul_resolver import ConsulResolverModel
from canary_mw.config.services.log_service import LogServiceModel
from canary_mw.config.services.tcp_mapping import TCPMappingModel
from canary_mw.config.services.tracing_service import TracingServiceModel

Json = dict[str, Any]

_GROUPS = ("getambassador.io", "ambassador")
_LEGACY = ("v0", "v1", "v2")
# Kinds whose attributes are the same in all versions, with those that are required.
_SAME_IN_ALL: tuple[tuple[str, type[BaseModel], dict[str, AttributeDoc], list[str]], ...] = (
    ("TLSContext", TLSContext, TLS_CONTEXT_ATTRIBUTES, []),
    ("TCPMapping", TCPMappingModel, TCP_MAPPING_ATTRIBUTES, ["port", "service"]),
    ("LogService", LogServiceModel, LOG_SERVICE_ATTRIBUTES, ["service"]),
    ("TracingService", TracingServiceModel, TRACING_SERVICE_ATTRIBUTES, ["service", "driver"]),
    ("ConsulResolver", ConsulResolverModel, CONSUL_RESOLVER_ATTRIBUTES, ["datacenter"]),
)
_TEXT: Json = {"type": "string"}
_LABELS: Json = {"type": "object", "additionalProperties": {"type": "string"}}
_LABELS_DESCRIPTION = (
    "variant: gray or stable sets the role of a Mapping; shadow_writes: allow sends copies of writes to a shadow."
)


def document_schema() -> Json:
    """The JSON Schema of one document."""
    definitions: Json = {}
    v3 = _properties(MappingV3, ATTRIBUTES, definitions)
    legacy = _properties(LegacyMapping, ATTRIBUTES, definitions)
    config = _properties(ModuleConfig, KEYS, definitions)
    config |= {name: {"description": "Not supported yet: ignored."} for name in sorted(UNSUPPORTED)}
    services = {kind: _properties(model, texts, definitions) for kind, model, texts, _ in _SAME_IN_ALL}
    auth = {name: _properties(each, AUTH_SERVICE_ATTRIBUTES, definitions) for name, each in AUTH_MODELS.items()}
    limits = {
        name: _properties(each, RATE_LIMIT_SERVICE_ATTRIBUTES, definitions) for name, each in LIMIT_MODELS.items()
    }
    release = _properties(GrayReleaseModel, GRAY_RELEASE_FIELDS, definitions)
    definitions |= {
        "MappingV3alpha1": _document("Mapping", ["v3alpha1"], v3, ["prefix", "service"]),
        "Mapping": _document("Mapping", _LEGACY, legacy, ["prefix", "service"]),
        "Module": _document("Module", (*_LEGACY, "v3alpha1"), _module(config), []),
        **{
            kind: _document(kind, (*_LEGACY, "v3alpha1"), services[kind], required)
            for kind, _, _, required in _SAME_IN_ALL
        },
        **{f"AuthService{name}": _document("AuthService", [name], auth[name], ["auth_service"]) for name in auth},
        **{
            f"RateLimitService{name}": _document("RateLimitService", [name], limits[name], ["service"]) for name in auth
        },
        "GrayRelease": _document("GrayRelease", ("v1",), release, ["gray"], CANARY_GROUPS),
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Rules of canary-mw",
        "description": "A document of getambassador.io, such as a Mapping, or a GrayRelease.",
        "type": "object",
        "required": ["apiVersion", "kind"],
        "properties": {"apiVersion": _TEXT, "kind": _TEXT},
        "allOf": [
            _if_then({"kind": {"const": "Mapping"}, "apiVersion": {"pattern": "/v3alpha1$"}}, "MappingV3alpha1"),
            _if_then({"kind": {"const": "Mapping"}, "apiVersion": {"not": {"pattern": "/v3alpha1$"}}}, "Mapping"),
            _if_then({"kind": {"const": "Module"}}, "Module"),
            *(_if_then({"kind": {"const": kind}}, kind) for kind in services),
            *(_if_then(_version_of("AuthService", name), f"AuthService{name}") for name in auth),
            *(_if_then(_version_of("RateLimitService", name), f"RateLimitService{name}") for name in limits),
            _if_then({"kind": {"const": "GrayRelease"}}, "GrayRelease"),
        ],
        "definitions": definitions,
    }


def _version_of(kind: str, version: str) -> Json:
    return {"kind": {"const": kind}, "apiVersion": {"pattern": f"/{version}$"}}


def _if_then(properties: Json, name: str) -> Json:
    return {
        "if": {"properties": properties, "required": [*properties]},
        "then": {"$ref": f"#/definitions/{name}"},
    }


def _document(
    kind: str,
    versions: tuple[str, ...] | list[str],
    attributes: Json,
    required: list[str],
    groups: tuple[str, ...] = _GROUPS,
) -> Json:
    """A kind in flat and CRD shape, which may be mixed: an attribute is at the top level or below `spec`."""
    spec = {"type": "object", "properties": attributes, "additionalProperties": False}
    metadata = {"type": "object", "properties": {"name": _TEXT, "namespace": _TEXT, "labels": _LABELS}}
    common = {
        "apiVersion": {"enum": [f"{group}/{version}" for group in groups for version in versions]},
        "kind": {"const": kind},
        "name": _TEXT,
        "namespace": _TEXT,
        "generation": {},
        "metadata": metadata,
        "metadata_labels": {**_LABELS, "description": _LABELS_DESCRIPTION},
        "spec": spec,
        "status": {},
    }
    constraints = [_in_either(name, "spec") for name in required] + [_in_either("name", "metadata")]
    return {
        "type": "object",
        "properties": {**attributes, **common},
        "additionalProperties": False,
        "allOf": constraints,
    }


def _in_either(name: str, part: str) -> Json:
    """An attribute is required, at the top level or below `part`."""
    below = {"required": [part], "properties": {part: {"required": [name]}}}
    return {"anyOf": [{"required": [name]}, below]}


def _module(config: Json) -> Json:
    ids = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}
    return {
        "ambassador_id": ids,
        "config": {"type": "object", "properties": config, "additionalProperties": False},
    }


def _properties(model: type[BaseModel], texts: dict[str, AttributeDoc], definitions: Json) -> Json:
    """The properties of a model with descriptions; nested models are added to `definitions`."""
    schema = _cleaned(model.model_json_schema(ref_template="#/definitions/{model}"))
    for name, inner in schema.pop("$defs", {}).items():
        definitions[name] = {**inner, "additionalProperties": False}
    return {name: _with_description(prop, texts[name]) for name, prop in schema["properties"].items()}


def _with_description(prop: Json, text: AttributeDoc) -> Json:
    # Draft 7 ignores keywords next to a $ref.
    prop = {"allOf": [prop]} if "$ref" in prop else prop
    differs = f" Unlike Emissary: {text.differs}." if text.differs else ""
    return {**prop, "description": text.meaning + differs}


def _cleaned(value: Any) -> Any:
    """Remove generated titles, the null type (an attribute is never null), and null defaults."""
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if not isinstance(value, dict):
        return value
    members = [member for member in value.get("anyOf", ()) if member != {"type": "null"}]
    if len(members) == 1:
        value = {**{name: item for name, item in value.items() if name != "anyOf"}, **members[0]}
    elif members:
        value = {**value, "anyOf": members}
    unwanted = {"title"} if isinstance(value.get("title"), str) else set()
    if value.get("default", ...) is None:
        unwanted.add("default")
    return {name: _cleaned(item) for name, item in value.items() if name not in unwanted}
