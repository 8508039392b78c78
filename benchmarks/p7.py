"""P7: `decide` alone, over tables of growing size, for requests with 12 headers."""

from functools import partial
from pathlib import Path
from time import thread_time_ns

from canary_mw.http.messages import RequestHead
from canary_mw.routing.decision import decide
from canary_mw.routing.table import RouteTable

from . import rules
from .compare import Options, best
from .report import Section

LIMITS = {10: 4, 1_000: 4, 10_000: 5}
CALLS = 20_000
TITLE = "decide alone, 12 headers"
NOTES = f"""\
{CALLS:,} requests to random prefixes in a loop, the loop included. None carries the gray header, so that each is tried
against the gray Mapping of its prefix first and then taken by the stable one. A server decides about headers that it
has just parsed, with caches that other work has used meanwhile: between the two figures. `in cache`: all requests share
one list of headers; `from memory`: each has its own, and together they are more than the caches hold."""


def run(options: Options, folder: Path) -> Section:
    """Measure."""
    section = Section("P7", TITLE, [NOTES])
    for count, limit in LIMITS.items():
        table = rules.table(count)
        for where, shared in (("in cache", True), ("from memory", False)):
            heads = rules.heads(count, CALLS, shared=shared)
            rounds = [best(partial(microseconds, table, heads)) for _ in range(options.rounds)]
            what = f"CPU per decision, {count:,} Mappings, headers {where}"
            section.at_most(what, rounds, limit, "us", 2)
    return section


def microseconds(table: RouteTable, heads: list[RequestHead]) -> float:
    """CPU per decision."""
    began = thread_time_ns()
    for head in heads:
        decide(table, head, 50.0)
    return (thread_time_ns() - began) / len(heads) / 1000
