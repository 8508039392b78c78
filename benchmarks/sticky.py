"""STICKY: what a decision by the key of a user costs more than one that is rolled."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from canary_mw.http.messages import RequestHead
from canary_mw.routing.table import RouteTable

from . import rules
from .compare import Options, best
from .p7 import CALLS, microseconds
from .report import Section, aligned, spread

MAPPINGS = 1_000
LIMIT = 2.0
WEIGHTS, ROLLED = "weights, without a release", "release, rolled"
TITLE = f"decide by the key of a user, {MAPPINGS:,} Mappings in {MAPPINGS // 2} groups of two, 14 headers"
NOTES = f"""\
{CALLS:,} requests to random prefixes in a loop, the loop included, each with a list of headers of its own. All have a
user in the last header, and in the last pair of the last Cookie line, and the tables differ only in where the key is
read. The rounds are paired: in each, all tables are measured in turn, a figure being the best of several batches."""
_RELEASE = """\
---
apiVersion: canary-mw/v1
kind: GrayRelease
name: bench
gray: {gray: {weight: 20, mappings: [%s]}}
fallback: {}
"""
_OTHERS = ", ".join(f"other-{number}" for number in range(1_000))
# What is looked up, as the release says it.
_KEYS = {
    ROLLED: "missing: roll\n",
    "header": "sticky: {header: x-user-id}\n",
    "header, and a list of 1,000 ids": f"sticky: {{header: x-user-id}}\nnever: {{ids: [{_OTHERS}]}}\n",
    "cookie": "sticky: {cookie: uid}\n",
    "anonymous cookie": "missing: cookie\n",
}


def run(options: Options, folder: Path) -> Section:
    """Measure; needs no server, and nothing in the folder."""
    section = Section("STICKY", TITLE, [NOTES])
    tables = {WEIGHTS: _table(None), **{name: _table(key) for name, key in _KEYS.items()}}
    heads = _heads()
    rounds: dict[str, list[float]] = {name: [] for name in tables}
    for _ in range(options.rounds):
        for name, table in tables.items():
            rounds[name].append(best(partial(microseconds, table, heads)))
    section.table = [("decided by", "CPU us"), *((name, spread(found, 2)) for name, found in rounds.items())]
    print(aligned(section.table), flush=True)
    added = _added(rounds, "header", WEIGHTS)
    section.at_most("CPU of a decision by a header over one by weights", added, LIMIT, "us", 2)
    section.at_most(
        "CPU of a decision by a header over one that a release rolls", _added(rounds, "header", ROLLED), LIMIT, "us", 2
    )
    section.figure("CPU of a decision by a cookie over one by weights", _added(rounds, "cookie", WEIGHTS), "us", 2)
    section.figure(
        "CPU of a decision by the anonymous cookie over one by weights",
        _added(rounds, "anonymous cookie", WEIGHTS),
        "us",
        2,
    )
    return section


def _added(rounds: dict[str, list[float]], above: str, below: str) -> Sequence[float]:
    return [one - other for one, other in zip(rounds[above], rounds[below], strict=True)]


def pairs(groups: int, weight: int) -> str:
    """Groups of a stable Mapping and a gray one."""
    parts = []
    for number in range(groups):
        for service, more in zip(rules.SERVICES, ("", f"weight: {weight}\n"), strict=True):
            name = f"{service}-{number:05}"
            parts.append(rules.MAPPING.format(name=name, prefix=rules.prefix(number), service=service) + more)
    return "".join(parts)


def release(groups: int, more: str) -> str:
    """One release that names the gray Mapping of each group."""
    return _RELEASE % ", ".join(f"gray-{number:05}" for number in range(groups)) + more


def _table(key: str | None) -> RouteTable:
    groups = MAPPINGS // 2
    return RouteTable.from_yaml(pairs(groups, 20) if key is None else pairs(groups, 0) + release(groups, key))


def _heads() -> list[RequestHead]:
    heads = rules.heads(MAPPINGS, CALLS)
    for number, head in enumerate(heads):
        user = b"user-%d" % number
        cookie = b"theme=dark; cmw_id=%022d; uid=%b" % (number, user)
        head.headers = [*head.headers, (b"cookie", cookie), (b"x-user-id", user)]
    return heads
