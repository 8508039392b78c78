"""The rules that every proxy of a comparison gets, and the requests that go through them.

Half of the Mappings are stable ones, each with a prefix of its own; the other half are their twins that take the
requests with the header `gray: true`.
"""

import random
from collections.abc import Iterable
from typing import NamedTuple

from canary_mw.http.messages import RequestHead
from canary_mw.routing.table import RouteTable

GRAY = ("gray", "true")
SERVICES = ("stable", "gray")
# As in production: the header by which users are known, and the percent of them that get gray.
USER, SHARE = "x-user", 20
MAPPING = """\
---
apiVersion: getambassador.io/v2
kind: Mapping
name: {name}
prefix: {prefix}
service: {service}
"""
_HEADER = ("", 'headers:\n  gray: "true"\n')
# With Host twelve, as a browser behind a load balancer sends them.
_BROWSER = {
    "host": "shop.example.com",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "accept-language": "en-US,en;q=0.5",
    "accept-encoding": "gzip, deflate, br",
    "cookie": "session=6f1c2b0e9d; theme=dark; consent=1",
    "referer": "https://shop.example.com/",
    "cache-control": "no-cache",
    "pragma": "no-cache",
    "x-forwarded-for": "203.0.113.7",
    "x-forwarded-proto": "https",
    "x-request-id": "2f1b4c1e-5b0c-4f0e-9a57-1d2c3b4a5f60",
}


class Rule(NamedTuple):
    """One Mapping; `service` is "stable" or "gray", `gray` whether it takes the requests with the header."""

    number: int
    gray: bool
    service: str

    @property
    def name(self) -> str:
        """Unique."""
        return f"svc-{self.number:05}-{'gray' if self.gray else 'stable'}"

    @property
    def prefix(self) -> str:
        """Shared with its twin."""
        return prefix(self.number)


def prefix(number: int) -> str:
    """The prefix of a pair of Mappings."""
    return f"/svc-{number:05}/"


def rules(count: int) -> list[Rule]:
    """`count` Mappings, an even number."""
    return [Rule(number, gray, SERVICES[gray]) for number in range(count // 2) for gray in (False, True)]


def text(count: int, more: str = "") -> str:
    """The same as YAML, with `more` in each."""
    return yaml(rules(count), more)


def yaml(some: Iterable[Rule], more: str = "") -> str:
    """Mappings as they are written."""
    return "".join(
        MAPPING.format(name=rule.name, prefix=rule.prefix, service=rule.service) + _HEADER[rule.gray] + more
        for rule in some
    )


def production(count: int, share: int = SHARE) -> str:
    """The same Mappings below one release, which gives gray to its share of the users."""
    found = rules(count)
    mappings = "".join(
        MAPPING.format(name=rule.name, prefix=rule.prefix, service=rule.service) + "weight: 0\n" * rule.gray
        for rule in found
    )
    gray = ", ".join(rule.name for rule in found if rule.gray)
    release = f"kind: GrayRelease\nname: bench\ngray: {{gray: {{weight: {share}, mappings: [{gray}]}}}}\n"
    return f"{mappings}---\napiVersion: canary-mw/v1\n{release}sticky: [{{header: {USER}}}]\n"


def table(count: int) -> RouteTable:
    """The same as canary-mw routes by it."""
    return RouteTable.from_yaml(text(count))


def in_order(count: int) -> list[Rule]:
    """The same in the order in which canary-mw matches them."""
    by_name = {rule.name: rule for rule in rules(count)}
    return [by_name[group.first.name] for group in table(count).groups]


def heads(count: int, length: int, *, shared: bool = False) -> list[RequestHead]:
    """`length` browser requests without the gray header, to random prefixes, the same ones in every run.

    Args:
        shared: all have one and the same list of headers, which then stays in the processor's cache; otherwise each has
            its own, which together are more than the cache holds.
    """
    draw = random.Random(count)
    found = [RequestHead("GET", f"{prefix(draw.randrange(count // 2))}item", headers=_BROWSER) for _ in range(length)]
    for head in found if shared else ():
        head.headers = found[0].headers
    return found
