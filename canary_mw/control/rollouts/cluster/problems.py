"""What keeps an object of a cluster from being read or written, in words: for who has to do something."""

from canary_mw.exceptions import CanaryError
from canary_mw.kubernetes.api import Refused, Unanswered
from canary_mw.kubernetes.credentials import Connection

_VERBS = {"GET": "get", "PUT": "update", "POST": "create", "WATCH": "watch"}


def explained(error: Exception, connection: Connection, kind: str, group: str, name: str) -> str:
    """The reason for an error.

    Args:
        kind: plural name of the kind.
        name: that of the object.
    """
    if isinstance(error, CanaryError):
        return str(error)
    if isinstance(error, Unanswered | TimeoutError):
        return f"the API server {connection.server} does not answer in time"
    if not isinstance(error, Refused):
        return f"the API server {connection.server} cannot be reached: {error or type(error).__name__}"
    if error.code == 403:
        verb = _VERBS.get(error.method, "get")
        return f"{error.message}; its Role lacks the rule {rule(group, kind, name, verb)}"
    if error.code == 401:
        return f"{error.message}; the credentials have expired, or are those of another cluster; they are read again"
    return f"the API server says {error.code} to {error.method} {kind}/{name}: {error.message}"


def rule(group: str, kind: str, name: str, *verbs: str) -> str:
    """A rule of a Role, for one object."""
    return f'{{apiGroups: ["{group}"], resources: [{kind}], resourceNames: [{name}], verbs: [{", ".join(verbs)}]}}'


def missing_config_map(namespace: str, name: str) -> str:
    """There is no ConfigMap, and this pod may not make it."""
    command = f"kubectl --namespace {namespace} create configmap {name}"
    return f"there is no ConfigMap {name} in {namespace}: make an empty one by `{command}`"


def missing_lease(namespace: str, name: str) -> str:
    """There is no Lease, and this pod may not make it."""
    metadata = f'"metadata":{{"name":"{name}","namespace":"{namespace}"}}'
    text = f'{{"apiVersion":"coordination.k8s.io/v1","kind":"Lease",{metadata}}}'
    return (
        f"there is no Lease {name} in {namespace}: make it by `echo '{text}' | kubectl create -f -`, "
        "or let CANARY_MW_ID name the one that there is"
    )
