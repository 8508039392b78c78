"""What belongs to other programs, and is passed over in silence: their objects, and their files beside ours."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from canary_mw.config.resource import NOT_IN_SPEC

AMBASSADOR_GROUPS = ("getambassador.io", "ambassador", "x.getambassador.io")
CANARY_GROUPS = ("canary-mw", "canary-mw.io")
_RULE_GROUPS = (*AMBASSADOR_GROUPS, *CANARY_GROUPS)
_RULE_KINDS = ("mapping", "grayrelease")

# Similarity of a misspelt name to the right one: "ambassador.io" has 0.9, Edge Stack's "gateway.getambassador.io" 0.81.
_MISSPELT = 0.85
# In JSON inside of a text, quotes have backslashes before them. A value may come from a variable.
_GROUP = re.compile(r"""apiVersion["'\\]*\s{0,20}:\s{0,20}["'\\]*([\w.${}-]{1,64})""")
_KIND = re.compile(r"""kind["'\\]*\s{0,20}:\s{0,20}["'\\]*(?:mapping\b|grayrelease\b|\$)""", re.I)
_ANNOTATION = re.compile(r"""getambassador\.io/config["'\\]*\s{0,20}[:=]""")
_PREFIX, _SERVICE = (re.compile(rf"""^[ \t{{,-]*["']?{name}["']?[ \t]*:""", re.M) for name in ("prefix", "service"))


def may_hold_rules(text: str) -> bool:
    """Whether a text has a line of a rule: an apiVersion of ours, also a misspelt one, a Mapping or its attributes."""
    return (
        any(_may_be_ours(match[1].lower()) for match in _GROUP.finditer(text))
        or bool(_KIND.search(text) or _ANNOTATION.search(text))
        or bool(_PREFIX.search(text) and _SERVICE.search(text))
    )


def _may_be_ours(group: str) -> bool:
    return "amb" in group or "canary" in group or "$" in group


def group_of(api_version: Any) -> str | None:
    """API group, "" for the core group, None without apiVersion."""
    return api_version.rpartition("/")[0] if isinstance(api_version, str) else None


def is_foreign(attributes: Mapping[str, Any]) -> bool:
    """Whether an object with an apiVersion is one of another API group.

    A Mapping or GrayRelease is not, whatever its group is, and neither is an object of a group that is misspelt: these
    are reported.
    """
    kind, group = attributes.get("kind"), group_of(attributes.get("apiVersion"))
    if group is None or get_close_matches(group.lower(), _RULE_GROUPS, 1, _MISSPELT):
        return False
    if isinstance(kind, str):
        return kind.lower() not in _RULE_KINDS
    return _is_something_else(attributes)


def is_unrelated(kind: str | None, attributes: Mapping[str, Any], kinds: tuple[str, ...]) -> bool:
    """Whether an object without apiVersion is not a rule that lost it, by its kind and attributes."""
    known = [each.lower() for each in kinds]
    return not (kind and get_close_matches(kind.lower(), known, 1, _MISSPELT)) and _is_something_else(attributes)


def _is_something_else(attributes: Mapping[str, Any]) -> bool:
    """Whether the attributes are those of another program; without any, the object may be a rule that is cut off."""
    spec = attributes.get("spec")
    places = (attributes, spec) if isinstance(spec, dict) else (attributes,)
    is_rule = any(all(isinstance(each.get(name), str) for name in ("prefix", "service")) for each in places)
    return not is_rule and bool(attributes.keys() - NOT_IN_SPEC)
