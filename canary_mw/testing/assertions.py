"""What a test says about rules: where a request goes, and which share of the keys a variant has."""

import os
from collections import Counter, deque
from collections.abc import Iterable
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from canary_mw.control.sources.file import FileSource
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import ConfigError
from canary_mw.http.messages import RequestHead
from canary_mw.inspection.explanation import Candidate, Explanation, explain
from canary_mw.inspection.explanation_text import explanation_lines
from canary_mw.middleware.identity import local_names
from canary_mw.routing.person import Person
from canary_mw.routing.table import RouteTable
from canary_mw.rules.release import STABLE

Headers = Dict[str, str] | Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Route:
    """Where a request goes, with the reason.

    Attributes:
        variant: the name of the variant, "stable" or "gray" without a release. None where it is drawn for each request,
            and where nobody takes the request.
        mapping: the name of the Mapping. None where it is drawn, and where the app or nobody takes the request.
        reason: the step of the release that decides, such as "sticky". Without a release "mapping", or "weight" where
            weights draw, "app" where no Mapping takes the request from the wrapped app, "nobody" for a 404.
        shares: the percent of each variant.
        explain: the request and what `canary-mw explain` prints of it.
    """

    variant: str | None
    mapping: str | None
    reason: str
    shares: Dict[str | None, float]
    explain: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self!r}\n{self.explain}"


# The plugin shows these where a test fails.
recent_routes: deque[Route] = deque(maxlen=2)


def load_rules(
    path_or_text: str | os.PathLike[str], local: str | Iterable[str] = (), middleware: bool = False
) -> RouteTable:
    """Read rules, as a middleware or the proxy reads them.

    Args:
        path_or_text: a file or a directory; or the rules themselves, a text with a line break.
        local: names of the service that the wrapped app is.
        middleware: whether an app is wrapped, which then takes the requests that no Mapping takes.

    Raises:
        ConfigError: the rules cannot be read, or have an error.
    """
    is_text = isinstance(path_or_text, str) and "\n" in path_or_text
    if not is_text and not os.path.exists(path_or_text):
        hint = "a text of rules has a line break"
        raise ConfigError(f"no such file or directory: {os.fspath(path_or_text)}", hint=hint)
    source = StaticSource(str(path_or_text)) if is_text else FileSource(path_or_text)
    store = RuleStore(source, local=local_names(local, {}), middleware=middleware)
    store.reload()
    if store.error is not None:
        raise store.error
    return store.table


def route(
    rules: RouteTable,
    path: str,
    method: str = "GET",
    headers: Headers = (),
    user: Any = None,
    session: Any = None,
    client: str = "127.0.0.1",
    predicates: Dict[str, bool] | None = None,
    trusted: bool = False,
) -> Route:
    """Where a request goes. Nothing is sent, and nothing is drawn.

    Args:
        path: with the query, as in "/shop/?page=2".
        headers: without Host it is localhost.
        client: the address of the client.
        trusted: whether the client is a trusted peer.

    Raises:
        ClientError: every server would refuse such a request.
    """
    pairs = list(headers.items() if isinstance(headers, Dict) else headers)
    if not any(name.lower() == "host" for name, _ in pairs):
        pairs.insert(0, ("host", "localhost"))
    head = RequestHead(method, path, pairs, client=client)
    person = Person(user=user, session=session, predicates=predicates or {}, trusted=trusted)
    found = _route(rules, explain(rules, head, person), f"{method} {path}")
    recent_routes.append(found)
    return found


def _route(rules: RouteTable, explanation: Explanation, request: str) -> Route:
    shares: dict[str | None, float] = {}
    for candidate in explanation.candidates:
        name = _variant(rules, candidate)
        shares[name] = round(shares.get(name, 0.0) + candidate.percent, 10)
    text = "\n".join((f"{request}:", *explanation_lines(explanation)))
    mappings = {_mapping(candidate) for candidate in explanation.candidates}
    return Route(
        variant=next(iter(shares)) if len(shares) == 1 else None,
        mapping=mappings.pop() if len(mappings) == 1 else None,
        reason=_reason(rules, explanation),
        shares=shares,
        explain=text,
    )


def _variant(rules: RouteTable, candidate: Candidate) -> str | None:
    decision = candidate.decision
    if decision is None:
        return STABLE if rules.middleware and candidate.outcome is None else None
    return decision.variant if decision.release is None else decision.release.variant


def _mapping(candidate: Candidate) -> str | None:
    # The name of what stands for the app is empty.
    return (candidate.decision and candidate.decision.mapping.name) or None


def _reason(rules: RouteTable, explanation: Explanation) -> str:
    if explanation.assigned is not None:
        return explanation.assigned.reason
    if len(explanation.candidates) > 1:
        return "weight"
    (only,) = explanation.candidates
    if only.decision is not None:
        return "mapping"
    return "app" if rules.middleware and only.outcome is None else "nobody"


def assert_share(
    rules: RouteTable,
    release: str,
    keys: Iterable[str | bytes],
    shares: Dict[str, float],
    tolerance: float = 0.3,
) -> None:
    """Assert which percent of some keys a release puts into its variants.

    Args:
        keys: as they stand in requests, such as ids of users. 100,000 keep to a share within 0.3, 1,000 within 4.
        shares: percents by variant; "stable" is one, too. What is not named may have any share.
        tolerance: percentage points.

    Raises:
        AssertionError: a share is another one.
        LookupError: there is no such release or variant.
        ValueError: there are no keys.
    """
    __tracebackhide__ = True
    compiled = rules.releases.get(release)
    if compiled is None:
        raise LookupError(f"no release {release!r} is in force, only: {', '.join(rules.releases) or 'none'}")
    known = {*compiled.claims.weights, STABLE}
    if unknown := shares.keys() - known:
        raise LookupError(f"{release} has no variant {', '.join(sorted(unknown))}, only: {', '.join(sorted(known))}")
    counts = Counter(map(compiled.variant_of, keys))
    total = counts.total()
    if not total:
        raise ValueError("there are no keys")
    found = {name: 100 * counts[name] / total for name in sorted(known)}
    if any(abs(found[name] - percent) > tolerance for name, percent in shares.items()):
        raise AssertionError("\n".join(_share_lines(release, found, shares, total, tolerance)))


def _share_lines(
    release: str, found: Dict[str, float], shares: Dict[str, float], total: int, tolerance: float
) -> Iterable[str]:
    yield f"the shares of {release} among {total} keys, with a tolerance of {tolerance:g}:"
    for name, percent in found.items():
        expected = f", expected {shares[name]:g} %" if name in shares else ""
        yield f"  {name}: {percent:.2f} %{expected}"
    # Three standard deviations, at the share where they are largest.
    chance = max(300 * sqrt(percent * (100 - percent)) / 100 / sqrt(total) for percent in shares.values())
    if chance > tolerance:
        yield f"  so few keys differ by chance by up to {chance:.1f} points: take more, or a larger tolerance"
