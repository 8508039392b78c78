"""What hooks are sent: Flagger's payload, and more about the step."""

import json
from collections.abc import Iterator
from math import isfinite
from typing import Any

from canary_mw.rollout.outcome import Message
from canary_mw.rollout.state import ReleaseState
from canary_mw.rollout.verdict import Look
from canary_mw.rules.plan import Hook
from canary_mw.rules.release import GrayRelease

# Phases of which somebody has to hear as of a warning.
_WARNING = frozenset(("Held", "RolledBack", "Aborted"))


def question(hook: Hook, document: GrayRelease, state: ReleaseState) -> bytes:
    """What a hook is asked with; its own metadata alone."""
    return _json(_of(document, state) | {"phase": state.phase, "metadata": dict(hook.metadata)})


def event(
    hook: Hook,
    document: GrayRelease,
    state: ReleaseState,
    message: Message,
    at: float,
    look: Look | None = None,
) -> bytes:
    """What a hook is told about a transition.

    Args:
        at: seconds since 1970.
        look: the last one at the evidence.
    """
    told = {
        "eventMessage": message.text,
        "eventType": "Warning" if message.after in _WARNING else "Normal",
        # As Flagger: milliseconds, in decimal digits.
        "timestamp": str(int(at * 1000)),
    }
    changed = {
        "phase": message.after,
        "attempt": message.attempt,
        "step": _item(document, message.step),
        "weight": round(sum(message.weights.values()), 6),
        "reason": message.reason,
        "metadata": {**dict(hook.metadata), **told},
        "metrics": [] if look is None else list(_metrics(look)),
    }
    return _json(_of(document, state) | changed)


def _metrics(look: Look) -> Iterator[dict[str, Any]]:
    """What each metric says of each gray variant: as JSON has no infinity, evidence without any is null."""
    for variant, found in look.findings.items():
        for each in found.metrics:
            yield {
                "name": each.metric.name,
                "variant": variant,
                "lnE": round(each.ln_e, 6) if isfinite(each.ln_e) else None,
                "lnNeeded": round(found.ln_needed, 6),
                "failedKeys": each.failures,
                "excess": each.excess,
            }


def _of(document: GrayRelease, state: ReleaseState) -> dict[str, Any]:
    return {
        "name": document.name,
        "namespace": document.namespace,
        # What Flagger has a checksum of: another one is another release.
        "checksum": state.subject,
        "attempt": state.attempt,
        "step": _item(document, state.step),
        "weight": round(state.weight, 6),
        "reason": state.reason,
        "metrics": [],
    }


def _item(document: GrayRelease, step: int) -> int:
    """The number of a step as people count those that are written, from 1."""
    stages = document.plan.stages if document.plan is not None else ()
    return stages[step].item if step < len(stages) else 0


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
