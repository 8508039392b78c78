"""What hypothesis draws for each target: its seeds changed in places, its words in a row, whole rules, and noise."""

import json
from typing import Any

from hypothesis import strategies as st

from canary_mw.config.ambassador.module import ModuleConfig
from canary_mw.config.ambassador.schema import MODELS

from .seeds import SEEDS
from .texts import NEXT
from .words import reads_rules, words_of

_ATTRIBUTES = sorted({name for model in MODELS.values() for name in model.model_fields})
_SETTINGS = sorted(ModuleConfig.model_fields)
_SCALARS = [
    *(
        "",
        "/svc/",
        "/",
        "*",
        "a",
        "s:80",
        "https://[::1]:443",
        "é",
        "a b",
        "x\r\ny",
        "%REQ(a)%",
        "%",
        "(",
        "(.*)",
        "\\1",
    ),
    *("1s", "-1s", "9" * 400 + "s", "s:" + "1" * 5000, "10.0.0.0/8", "true", "websocket", "default", "round_robin"),
    *("ring_hash", "5xx", "/a?b#c", "a.example", "*.example", "GET", "gray", ":authority", "content-length", "host"),
    *(0, -1, 1, 50, 101, 301, 600, 10**60, 1.5, float("inf"), True, False, None),
]
_KEYS = [
    *(
        "a",
        "x-a",
        "x a",
        "host",
        ":authority",
        "value",
        "append",
        "pattern",
        "substitution",
        "policy",
        "cookie",
        "name",
    ),
    *("ttl", "header", "source_ip", "retry_on", "num_retries", "per_try_timeout", "origins", "methods", "credentials"),
    *("max_age", "priority", "max_connections", "health_check", "http", "path", "interval", "expected_statuses", "min"),
    *(
        "max",
        "remote",
        "peer",
        "httpmapping",
        "add_request_headers",
        "variant",
        "shadow_writes",
        "consecutive_5xx",
        "1",
    ),
]


def inputs(name: str) -> st.SearchStrategy[bytes]:
    """Inputs of a target."""
    words = words_of(name)
    drawn = [changed(SEEDS[name], words), in_a_row(words), st.binary(max_size=64)]
    if reads_rules(name):
        drawn.append(rule_texts())
    return st.one_of(drawn)


def in_a_row(words: list[bytes]) -> st.SearchStrategy[bytes]:
    """Words, one behind the other, and behind the two bytes that say how a target goes about them."""
    return st.builds(lambda plan, parts: plan + b"".join(parts), plans(), st.lists(st.sampled_from(words), max_size=40))


def plans() -> st.SearchStrategy[bytes]:
    """The two bytes in front of an input."""
    return st.binary(min_size=2, max_size=2)


def changed(seeds: list[bytes], words: list[bytes]) -> st.SearchStrategy[bytes]:
    """Seeds in which parts are replaced, left out or repeated."""
    part = st.one_of(st.sampled_from(words), st.binary(max_size=3), st.just(None))
    edits = st.lists(st.tuples(st.integers(0, 600), st.integers(0, 12), part), max_size=4)
    return st.builds(_edited, st.sampled_from(seeds), edits)


def _edited(seed: bytes, edits: list[tuple[int, int, bytes | None]]) -> bytes:
    for place, length, part in edits:
        at = place % (len(seed) + 1)
        # None repeats what is there.
        new = 2 * seed[at : at + length] if part is None else part
        seed = seed[:at] + new + seed[at + length :]
    return seed


def rule_texts() -> st.SearchStrategy[bytes]:
    """Documents with any attributes that a Mapping or a Module has, and any values in them; sometimes two readings."""
    document = st.one_of(_mappings(), _modules())
    text = st.lists(document, min_size=1, max_size=4).map("\n---\n".join)
    both = st.one_of(text, st.builds(lambda one, other: one + NEXT + other, text, text))
    return both.map(lambda drawn: drawn.encode("utf-8", "replace"))


def _mappings() -> st.SearchStrategy[str]:
    head = st.fixed_dictionaries(
        {
            "apiVersion": st.sampled_from([*(f"getambassador.io/{version}" for version in MODELS), "ambassador/v1"]),
            "kind": st.just("Mapping"),
            "name": st.sampled_from(["a", "b"]),
        }
    )
    usual = st.fixed_dictionaries(
        {"prefix": st.sampled_from(["/svc/", "/", "/a"]), "service": st.sampled_from(["svc", "b"])}
    )
    more = st.dictionaries(st.sampled_from(_ATTRIBUTES), values(), max_size=5)
    return st.builds(lambda *parts: json.dumps(parts[0] | parts[1] | parts[2]), head, usual, more)


def _modules() -> st.SearchStrategy[str]:
    config = st.dictionaries(st.sampled_from(_SETTINGS), values(), max_size=3)
    head = {"apiVersion": "getambassador.io/v2", "kind": "Module", "name": "ambassador"}
    return config.map(lambda given: json.dumps({**head, "config": given}))


def values() -> st.SearchStrategy[Any]:
    """Values of attributes, most of them wrong."""
    scalar = st.sampled_from(_SCALARS)
    return st.recursive(
        scalar,
        lambda inner: st.one_of(
            st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(_KEYS), inner, min_size=1, max_size=3)
        ),
        max_leaves=5,
    )
