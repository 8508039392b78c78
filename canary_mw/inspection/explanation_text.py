"""Explanations as lines of text."""

import json
from collections.abc import Callable, Iterator
from typing import Literal

from canary_mw.forwarding.messages import Reply, UpstreamRequest
from canary_mw.inspection.explanation import Candidate, Explanation
from canary_mw.inspection.explanation_json import attributes_of
from canary_mw.inspection.release_trace import range_lines, release_steps
from canary_mw.rules.mapping import Mapping

# What a piece of the text says; a terminal may give it a colour.
Role = Literal["gray", "stable", "matched", "not matched"]


def _plain(text: str, _: Role) -> str:
    return text


def explanation_lines(explanation: Explanation, styled: Callable[[str, Role], str] = _plain) -> list[str]:
    """The possible outcomes with their shares, and the groups that were considered.

    Args:
        styled: gives a piece of text its colour.
    """
    rows = [_row(candidate) for candidate in explanation.candidates]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for candidate, (share, variant, name, outcome, *details) in zip(explanation.candidates, rows, strict=True):
        cell = variant.ljust(widths[1])
        if candidate.decision is not None:
            cell = styled(cell, candidate.decision.variant)
        lines.append("  ".join((share.rjust(widths[0]), cell, name.ljust(widths[2]), outcome)))
        lines += [f"{'':{sum(widths[:2]) + 4}}{line}" for line in details]
    lines += _release_lines(explanation, styled)
    if explanation.considered:
        lines += ["", "groups, in the order of routing:"]
    for item in explanation.considered:
        mark = styled("+", "matched") if item.matched else styled("-", "not matched")
        lines.append(f"  {mark} {item.group}: {item.why}")
    return lines


def _release_lines(explanation: Explanation, styled: Callable[[str, Role], str]) -> Iterator[str]:
    release, assigned = explanation.release, explanation.assigned
    if release is None or assigned is None:
        return
    yield from ("", f"release {release.name}: {assigned.variant or 'drawn for each request'} ({assigned.reason})")
    for number, step in enumerate(release_steps(explanation)):
        mark = styled("+", "matched") if step.applies else styled("-", "not matched")
        yield f"  {mark} {number} {step.name}: {step.why}"
    yield from (f"    {line}" for line in range_lines(release))


def _row(candidate: Candidate) -> list[str]:
    decision, outcome = candidate.decision, candidate.outcome
    share = f"{candidate.percent:g} %"
    name = (decision and decision.mapping.name) or "(no Mapping)"
    assigned = decision.release.variant if decision and decision.release else None
    variant = assigned or (decision.variant if decision else "-")
    if outcome is None:
        return [share, variant, name, "the wrapped app answers", *candidate.asks]
    if isinstance(outcome, Reply):
        location = [f" {value.decode()}" for key, value in outcome.headers or () if key == b"location"]
        return [share, variant, name, f"answered {outcome.status}{''.join(location)}"]
    # What is sent, is sent by a decision.
    assert decision is not None
    lines = [*candidate.asks, *_request_lines(outcome), *_attribute_lines(decision.mapping)]
    return [share, variant, name, f"-> {decision.mapping.service.text}", *lines]


def _attribute_lines(mapping: Mapping) -> list[str]:
    attributes = attributes_of(mapping)
    if not attributes:
        return []
    return ["kept: " + ", ".join(f"{name}: {json.dumps(value)}" for name, value in attributes.items())]


def _request_lines(request: UpstreamRequest) -> list[str]:
    host = request.headers[0][1].decode("latin-1")
    timeout = "none" if request.timeout is None else f"{request.timeout:g} s"
    if request.timeout is not None and request.timeout_ends_at_head:
        timeout += " to the response head"
    return [f"{request.method} {request.target.decode('latin-1')}  host: {host}  timeout: {timeout}"]
