"""A GrayRelease document -> `GrayRelease`, with all its errors at once."""

from collections.abc import Callable
from collections.abc import Mapping as Dict
from difflib import get_close_matches
from functools import partial
from typing import Any

from canary_mw.config.ambassador.ambassador_id import ambassador_ids, matches_ambassador_id
from canary_mw.config.canary import fields
from canary_mw.config.canary.audience import audience
from canary_mw.config.canary.fields import NAME, FieldError
from canary_mw.config.canary.plan import PARTS, plan, shares, without_effect
from canary_mw.config.canary.schema import FallbackModel, GrayReleaseModel, HashModel, IdsModel, VariantModel
from canary_mw.config.foreign_objects import CANARY_GROUPS
from canary_mw.config.resource import Resource
from canary_mw.config.validation import Report, validate
from canary_mw.config.wording import did_you_mean
from canary_mw.rules.id_list import NO_IDS, IdList
from canary_mw.rules.release import (
    DEFAULT_RESPONSE_HEADER,
    SLOTS,
    SLOTS_PER_PERCENT,
    STABLE,
    GrayRelease,
    HashFunction,
    Holdout,
    Layer,
    Missing,
    ReleaseVariant,
)

KIND = "GrayRelease"
_KINDS = (KIND, "Mapping")
# Without one of these more people get gray than are meant to, or sooner.
_HOLDING = frozenset("analysis audience bake enabled holdout hooks layer never on_failure promote steps".split())
VERSIONS = tuple(f"{group}/v1" for group in CANARY_GROUPS)
MAX_VARIANTS = 16
_RESERVED = frozenset((STABLE, "always", "never"))
# The hashes of other products, and the field with the name that is hashed.
_HASH_NAMES = {"sha256": None, "unleash": "group", "growthbook": "seed", "flagd-v2": "flag", "flagd-v3": "flag"}


def to_release(resource: Resource, file: str, ambassador_id: str, report: Report) -> GrayRelease | None:
    """Check one document by version, kind, types and values; None if it gives no release."""
    if not matches_ambassador_id(resource, ambassador_id):
        text = f"passed over: it is for ambassador_id {', '.join(ambassador_ids(resource))}, not for {ambassador_id}"
        hint = "--ambassador-id names the id of this process"
        report("notice", "other-ambassador-id", text, attribute="ambassador_id", hint=hint)
        return None
    if resource.kind != KIND:
        what = "no kind" if resource.kind is None else f"unknown kind {resource.kind}"
        report("error", "unknown-kind", f"{what}: the document is left out", hint=did_you_mean(resource.kind, _KINDS))
        return None
    if resource.api_version not in VERSIONS:
        text = f"apiVersion {resource.api_version} is not known"
        report("error", "unknown-version", text, attribute="apiVersion", hint=f"write {VERSIONS[0]}")
        return None
    if not resource.name:
        report("error", "no-name", "the GrayRelease has no name: it is left out", hint="give it a name")
        return None
    model = validate(GrayReleaseModel, _with_plain_on(resource.spec), report, misspelt=_holding_field)
    return None if model is None else _convert(model, resource, file, report)


def _holding_field(name: str) -> str | None:
    """The field of `_HOLDING` that an unknown name is a misspelling of."""
    found = get_close_matches(name.lower(), GrayReleaseModel.model_fields, n=1, cutoff=0.8)
    return found[0] if found and found[0] in _HOLDING else None


def _with_plain_on(spec: Dict[str, Any]) -> dict[str, Any]:
    """The attributes, with `on` of `fallback` as a text: without quotes YAML reads it as a boolean."""
    found = dict(spec)
    if isinstance(fallback := spec.get("fallback"), dict):
        names = FallbackModel.model_fields
        found["fallback"] = {str(key) if key in names else key: value for key, value in fallback.items()}
    return found


def _convert(model: GrayReleaseModel, resource: Resource, file: str, report: Report) -> GrayRelease | None:
    values, errors = _read(model, resource.name or "")
    for error in errors:
        report("error", error.code, error.message, attribute=error.attribute, hint=error.hint)
    if errors:
        return None
    values["plan"] = plan(model, {name: values.pop(name) for name in PARTS})
    for name in without_effect(model):
        text = f"{name} has no effect without steps"
        report("warning", "release-steps", text, attribute=name, hint="write steps: auto, or leave it out")
    return GrayRelease(namespace=resource.namespace, file=file, line=resource.line, lines=resource.lines, **values)


def _read(model: GrayReleaseModel, name: str) -> tuple[dict[str, Any], list[FieldError]]:
    """The values of the fields, and what is wrong with others."""
    values: dict[str, Any] = {}
    errors: dict[tuple[str, str], FieldError] = {}
    readers = _READERS | {part: partial(_read_part, read) for part, read in PARTS.items()}
    for field, read in readers.items():
        try:
            values[field] = read(model, name)
        except FieldError as error:
            # A part of the plan is read with the parts that it depends on.
            errors[error.attribute, error.message] = error
    return values, [*errors.values()]


def _read_part(read: Callable[[GrayReleaseModel], Any], model: GrayReleaseModel, name: str) -> Any:
    return read(model)


def _name(model: GrayReleaseModel, name: str) -> str:
    return fields.text(name, "name", NAME)


def _lane(model: GrayReleaseModel, name: str) -> str:
    return name if model.lane is None else fields.text(model.lane, "lane", NAME)


def _hash(model: GrayReleaseModel, name: str) -> HashFunction:
    salt = name if model.salt is None else fields.text(model.salt, "salt")
    if not isinstance(model.hash, HashModel):
        return HashFunction(model.hash or "sha256", salt)
    wanted = _HASH_NAMES[model.hash.kind]
    for field in ("group", "seed", "flag"):
        if field != wanted and getattr(model.hash, field) is not None:
            hint = f"its name is {wanted}" if wanted else "write salt"
            raise FieldError("bad-value", f"hash.{field}", f"hash: {model.hash.kind} has no {field}", hint)
    given = getattr(model.hash, wanted) if wanted else None
    if given == "":
        raise FieldError(
            "bad-value", f"hash.{wanted}", f"hash.{wanted} is empty", "write the name that the product uses"
        )
    return HashFunction(model.hash.kind, given or salt)


def _missing(model: GrayReleaseModel, name: str) -> Missing:
    kind = model.hash.kind if isinstance(model.hash, HashModel) else model.hash
    # Unleash gives nothing to a request without a key.
    return model.missing or ("stable" if model.sticky or kind == "unleash" else "cookie")


def _stable(model: GrayReleaseModel, name: str) -> tuple[str, ...]:
    written = [model.stable] if isinstance(model.stable, str) else model.stable or []
    names = tuple(each for each in written if each != "local")
    if len(names) != len(written) and names:
        raise FieldError("bad-value", "stable", "stable names Mappings and local", "write one or the other")
    return names


def _stable_local(model: GrayReleaseModel, name: str) -> bool:
    return model.stable in ("local", ["local"])


def _variants(model: GrayReleaseModel, name: str) -> tuple[ReleaseVariant, ...]:
    gray = dict.fromkeys(model.gray) if isinstance(model.gray, list) else model.gray
    if not 1 <= len(gray) <= MAX_VARIANTS or len(gray) != len(model.gray):
        hint = "name each variant once" if len(gray) != len(model.gray) else "write gray: {NAME: 20}"
        message = f"gray has {len(model.gray)} variants; 1 to {MAX_VARIANTS} different ones are allowed"
        raise FieldError("bad-value", "gray", message, hint)
    if model.steps is not None:
        shares(model)
    found = tuple(_variant(each, value, planned=model.steps is not None) for each, value in gray.items())
    if (total := sum(variant.slots or 0 for variant in found)) > SLOTS:
        message = f"the percents of gray add up to {total * 100 / SLOTS:g}, more than 100"
        raise FieldError("release-weights", "gray", message, "lower one; the rest is stable's")
    _check_hash(model, found)
    return found


def _variant(name: str, written: float | VariantModel | None, *, planned: bool) -> ReleaseVariant:
    """A variant; one with a plan has the weight 0 until whoever drives the plan says more."""
    path = f"gray.{name}"
    if name in _RESERVED:
        message = f"{name} is no name for a variant"
        raise FieldError("bad-value", path, message, f"{', '.join(sorted(_RESERVED))} have a meaning of their own")
    fields.text(name, path)
    if not isinstance(written, VariantModel):
        slots = 0 if planned else None if written is None else fields.slots(written, path)
        return ReleaseVariant(name=name, mappings=(name,), slots=slots)
    if written.share is not None and not planned:
        text = f"{path}: a share needs steps, which say the percents"
        raise FieldError("release-steps", path, text, "write steps: auto, or weight in place of share")
    if written.weight is None and not planned:
        raise FieldError("release-weight-value", path, f"the weight of {name} is missing", "write weight: 20")
    if written.mappings == []:
        raise FieldError("bad-value", path, f"{name} names no Mapping", f"leave mappings out for [{name}]")
    return ReleaseVariant(
        name=name,
        mappings=tuple(dict.fromkeys(written.mappings or [name])),
        slots=fields.slots(written.weight or 0, path),
        at=None if written.at is None else fields.slots(written.at, path) % SLOTS,
        grows_down=written.grow == "down",
        always=_ids(written.always),
        always_file=written.always.file if written.always else None,
    )


def _check_hash(model: GrayReleaseModel, variants: tuple[ReleaseVariant, ...]) -> None:
    kind = model.hash.kind if isinstance(model.hash, HashModel) else model.hash
    if kind != "unleash":
        return
    if len(variants) > 1:
        raise FieldError("bad-value", "hash", "hash: unleash knows one variant", "use sha256 for several")
    if (variants[0].slots or 0) % SLOTS_PER_PERCENT:
        message = f"the percent of {variants[0].name} is not whole, as hash: unleash demands"
        raise FieldError("release-weight-value", f"gray.{variants[0].name}", message, "write a whole percent")


def _ids(model: IdsModel | None) -> IdList:
    return IdList(each.encode() for each in model.ids) if model and model.ids else NO_IDS


def _layer(model: GrayReleaseModel, name: str) -> Layer | None:
    if model.layer is None:
        return None
    start, end = fields.slots(model.layer.start, "layer.from"), fields.slots(model.layer.end, "layer.to")
    if start >= end:
        raise FieldError("bad-value", "layer", "layer: from is not below to", "write the smaller percent as from")
    return Layer(fields.text(model.layer.name, "layer.name"), start, end)


def _holdout(model: GrayReleaseModel, name: str) -> Holdout | None:
    if model.holdout is None:
        return None
    percent = fields.slots(model.holdout.percent, "holdout.percent")
    return Holdout(fields.text(model.holdout.name, "holdout.name"), percent)


def _response_header(model: GrayReleaseModel, name: str) -> bytes | None:
    written = model.response_header
    if isinstance(written, str):
        return fields.response_header(written)
    return None if written is False else DEFAULT_RESPONSE_HEADER


_READERS: dict[str, Callable[[GrayReleaseModel, str], Any]] = {
    "name": _name,
    "variants": _variants,
    "stable": _stable,
    "stable_local": _stable_local,
    "hash": _hash,
    "lane": _lane,
    "sticky": lambda model, _: fields.keys(model.sticky),
    "missing": _missing,
    "cookie": lambda model, _: fields.cookie(model.cookie),
    "choice": lambda model, _: fields.choice(model.choice),
    "never": lambda model, _: _ids(model.never),
    "never_file": lambda model, _: model.never.file if model.never else None,
    "layer": _layer,
    "holdout": _holdout,
    "enabled": lambda model, _: model.enabled,
    "audience": lambda model, _: audience(model.audience),
    "drain": lambda model, _: model.on_zero == "drain",
    "fallback": lambda model, _: fields.fallback(model.fallback),
    "propagate": lambda model, _: fields.propagate(model.propagate),
    "revision": lambda model, _: model.revision,
    "response_header": _response_header,
}


def named_mappings(spec: Dict[str, Any]) -> frozenset[str]:
    """The Mappings that `gray` of a document names, also where the document is in error."""
    gray = spec.get("gray")
    if isinstance(gray, list):
        return frozenset(each for each in gray if isinstance(each, str))
    names: set[str] = set()
    for name, value in gray.items() if isinstance(gray, dict) else ():
        mappings = value.get("mappings") if isinstance(value, dict) else None
        listed = [mappings] if isinstance(mappings, str) else mappings if isinstance(mappings, list) else [name]
        names.update(str(each) for each in listed if isinstance(each, str))
    return frozenset(names)
