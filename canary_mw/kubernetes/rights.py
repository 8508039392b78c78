"""Which rights are missing, in words. It explains a refusal, and decides nothing."""

from typing import Any

import httpx

from canary_mw.kubernetes.api import Api, Refused, Unanswered
from canary_mw.kubernetes.kinds import Kind
from canary_mw.kubernetes.reflector import MalformedAnswer

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_VERBS = ("list", "watch")


async def explain_denial(api: Api, kind: Kind, namespace: str, message: str) -> str:
    """The message of a refusal, with the rule that is missing in a role."""
    missing = [verb for verb in _VERBS if not await _may(api, kind, namespace, verb)] or list(_VERBS)
    role = "Role" if namespace else "ClusterRole"
    rule = f'{{apiGroups: ["{kind.group}"], resources: [{kind.plural}], verbs: [{", ".join(missing)}]}}'
    return f"{message}; its {role} lacks the rule {rule}"


async def _may(api: Api, kind: Kind, namespace: str, verb: str) -> bool:
    attributes = {"namespace": namespace, "verb": verb, "group": kind.group, "resource": kind.plural}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    try:
        answer = await api.post(_REVIEWS, review)
    except (Refused, Unanswered, MalformedAnswer, httpx.HTTPError, OSError):
        return False
    return _allowed(answer)


def _allowed(answer: Any) -> bool:
    status = answer.get("status") if isinstance(answer, dict) else None
    return isinstance(status, dict) and status.get("allowed") is True
