"""Texts in messages about rules."""

import json


def quoted(text: str) -> str:
    """A text as YAML quotes it: a backslash is not doubled, unless a character needs one before it."""
    return f"'{text}'" if text.isprintable() and "'" not in text else json.dumps(text, ensure_ascii=False)
