"""The answer about what would happen to a request: by the code that routes, with the rules in force."""

from typing import Any

from canary_mw.admin.answers.frame import answer_frame
from canary_mw.admin.answers.problems import NOT_SHOWN
from canary_mw.admin.explaining.question import ExplainQuestion
from canary_mw.admin.explaining.words import SECRET_HEADERS, details, others, position, sent, sentence, steps
from canary_mw.admin.models.explain import ExplainAnswer, ExplainForm, ExplainRequest
from canary_mw.admin.subject import Subject
from canary_mw.inspection.explanation import Explanation, explain
from canary_mw.inspection.explanation_json import explanation_json
from canary_mw.observability.figures.values import Figures


def explain_answer(subject: Subject, figures: Figures, question: ExplainQuestion) -> ExplainAnswer:
    """What would happen to a request, without sending anything."""
    table = subject.store.table
    explanation = explain(table, question.head, question.person)
    decision, result = _only_decision(explanation), explanation_json(table, explanation)
    return {
        **answer_frame(subject, figures),
        "request": question.shown,
        "candidates": [_without_secrets(each) for each in result["candidates"]],
        "considered": result["considered"],
        "release": result["release"],
        "sentence": sentence(explanation),
        "details": details(explanation),
        "variant": decision[0] if decision else None,
        "gray": decision[1] if decision else None,
        "steps": [*steps(table, explanation)],
        "position": position(explanation),
        "asks": list(dict.fromkeys(text for each in explanation.candidates for text in each.asks)),
        "sent": sent(explanation),
        "others": [*others(table, explanation)],
    }


def explain_form(subject: Subject, figures: Figures, shown: ExplainRequest, error: str | None = None) -> ExplainForm:
    """The form without an answer.

    Args:
        shown: the fields as far as they are filled in.
        error: why there is no answer.
    """
    return {**answer_frame(subject, figures), "request": shown, "error": error}


def _only_decision(explanation: Explanation) -> tuple[str, bool] | None:
    """Variant, and whether it is gray, where all draws give the same."""
    if len(explanation.candidates) != 1:
        return None
    decision = explanation.candidates[0].decision
    if decision is None:
        return None
    variant = decision.release.variant if decision.release else None
    return variant or decision.variant, decision.variant == "gray"


def _without_secrets(candidate: dict[str, Any]) -> dict[str, Any]:
    """A candidate without the values of credentials that a rule adds."""
    upstream = candidate["upstream"]
    if upstream is None:
        return candidate
    hidden = {name: _hidden(upstream[name]) for name in ("headers_added", "headers_changed")}
    return {**candidate, "upstream": {**upstream, **hidden}}


def _hidden(headers: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: [NOT_SHOWN] if name in SECRET_HEADERS else values for name, values in headers.items()}
