"""`ambassador_id`: which documents are meant for this process (Emissary `config.py`, `good_ambassador_id`)."""

from typing import Any

from canary_mw.config.resource import Resource

# Emissary's API server writes v3alpha1 documents as v2 with this before each id, so that Emissary 1, which would read
# them wrongly, passes them over. Emissary takes it off again.
_CONVERTED = "--apiVersion-v3alpha1-only--"
_EVERYONE = ["_automatic_"]


def ambassador_ids(resource: Resource) -> list[str]:
    """The ids that a document is meant for, empty if it is meant for all.

    A value of a wrong type counts as none: the check of the types reports it.
    """
    written: Any = resource.spec.get("ambassador_id")
    ids = [written] if written and isinstance(written, str) else written
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        return []
    if resource.api_version != "getambassador.io/v3alpha1":
        ids = [each.removeprefix(_CONVERTED) for each in ids]
    return [] if ids == _EVERYONE else ids


def matches_ambassador_id(resource: Resource, ambassador_id: str) -> bool:
    """Whether a document is meant for an ambassador_id; one without the attribute is meant for all."""
    ids = ambassador_ids(resource)
    return not ids or ambassador_id in ids
