"""The words of findings: values as YAML writes them, names that are close to a misspelt one."""

import json
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from canary_mw.config.yaml.scalars import OddKey, value_of
from canary_mw.rules.wording import quoted

_MAX_LENGTH = 60


def in_words(value: Any) -> str:
    """A value with its kind: "the text 'a'", "the number 5", "the boolean true", "the list [a]", "null"."""
    if value is None:
        return "null"
    text = _flow(value)
    return f"{kind_in_words(value)} {text if len(text) < _MAX_LENGTH else text[: _MAX_LENGTH - 3] + '...'}"


def kind_in_words(value: Any) -> str:
    """The kind of a value alone, where the value may be a secret: "the text"."""
    if isinstance(value, bool):
        return "the boolean"
    kind = "text" if isinstance(value, str) else "number" if isinstance(value, int | float) else None
    return f"the {kind or ('list' if isinstance(value, list) else 'map')}"


def _flow(value: Any) -> str:
    """A value as YAML writes it on one line."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def _key(key: str) -> str:
    return key if key.isprintable() else quoted(key)


def odd_key_in_words(key: OddKey) -> tuple[str, str]:
    """What is wrong with a key that is no text, and what to do."""
    if not key:
        return "a key is empty, which is read as null", "give it a name"
    return f"the key `{key:.60}` is read as {in_words(value_of(key))}", f'put it in quotes: "{key:.60}"'


def did_you_mean(name: str | None, known: Sequence[str]) -> str | None:
    """A hint with the known name that is closest to a misspelt one, None without a close one."""
    found = closest_to(name or "", known)
    return f"did you mean {found}?" if found else None


def closest_to(name: str, known: Sequence[str]) -> str | None:
    """The known name that is closest to a misspelt one, None without a close one."""
    found = get_close_matches(name.lower(), [k.lower() for k in known], n=1)
    return next(k for k in known if k.lower() == found[0]) if found else None
