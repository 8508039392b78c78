"""Which rights are missing, in words. It explains a refusal, and decides nothing."""

from collections.abc import Iterable
from typing import Any

from canary_mw.kubernetes.api import Api
from canary_mw.kubernetes.credentials import Connection
from canary_mw.kubernetes.kinds import Kind

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_VERBS = ("list", "watch")
# Who a request without credentials is from.
_NOBODY = "system:anonymous"


async def explain_denial(api: Api, kind: Kind, namespace: str, message: str) -> str:
    """The message of a refusal, with the rule that is missing in a role."""
    if _NOBODY in message:
        return (
            f"{message}; no credentials were sent: name a token, a certificate or `exec` of this user in the kubeconfig"
        )
    missing = [verb for verb in _VERBS if not await _may(api, kind, namespace, verb)] or list(_VERBS)
    role = "Role" if namespace else "ClusterRole"
    return f"{message}; its {role} lacks the rule {_rule(kind, missing)}"


async def missing_rights(connection: Connection, wanted: Iterable[tuple[Kind, str]]) -> list[str]:
    """The rules that the roles of a service account lack, each with its namespace; empty where the server does not say.

    Args:
        wanted: kinds, and the namespace of each, empty for all.
    """
    api, found = Api(connection), []
    try:
        for kind, namespace in wanted:
            missing = [verb for verb in _VERBS if await _may(api, kind, namespace, verb) is False]
            if missing:
                found.append(f"{_role(namespace)}: {_rule(kind, missing)}")
    finally:
        await api.reset()
    return found


def _role(namespace: str) -> str:
    return f"Role in {namespace}" if namespace else "ClusterRole"


def _rule(kind: Kind, verbs: Iterable[str]) -> str:
    return f'{{apiGroups: ["{kind.group}"], resources: [{kind.plural}], verbs: [{", ".join(verbs)}]}}'


async def _may(api: Api, kind: Kind, namespace: str, verb: str) -> bool | None:
    """Whether a verb is allowed, None where the server does not say."""
    attributes = {"namespace": namespace, "verb": verb, "group": kind.group, "resource": kind.plural}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    try:
        answer = await api.post(_REVIEWS, review)
    except Exception:  # noqa: BLE001 - whatever a server sends, nothing depends on it
        return None
    return _allowed(answer)


def _allowed(answer: Any) -> bool:
    status = answer.get("status") if isinstance(answer, dict) else None
    return isinstance(status, dict) and status.get("allowed") is True
