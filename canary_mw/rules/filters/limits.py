"""A RateLimitService and the labels of Mappings as values: what is counted about a request."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from canary_mw.http.messages import RequestHead
from canary_mw.rules.service import Service
from canary_mw.rules.upstream import DEFAULT_OPTIONS, UpstreamOptions

Kind = Literal["constant", "header", "remote_address", "source_cluster"]
Entry = tuple[str, str]  # key, value


class Label(NamedTuple):
    """What gives one entry of a descriptor.

    Attributes:
        value: of a constant, or the name of a header in lower case; ":method", ":path" and ":authority" work as well.
    """

    kind: Kind
    key: str
    value: str = ""


Descriptor = tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class RateLimitPolicy:
    """A RateLimitService.

    Attributes:
        domain: the labels of this domain count.
        timeout: seconds for connect, send and answer together, None for no limit.
        failure_mode_deny: a request is answered with 500 when the service fails; else it goes on.
        resource_exhausted: over the limit, gRPC clients get the status 8, not 14.
        source_cluster: value of the label of this name.
        defaults: put before the labels of each descriptor, by the Module.
        options: of connections to the service.
        file, line: where it is written; not part of equality.
    """

    name: str
    service: Service
    domain: str = "ambassador"
    timeout: float | None = 0.02
    failure_mode_deny: bool = False
    resource_exhausted: bool = False
    source_cluster: str = "default-default"
    defaults: Descriptor = ()
    connect_timeout: float = 3.0
    options: UpstreamOptions = DEFAULT_OPTIONS
    file: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)

    def descriptors(
        self, written: tuple[Descriptor, ...], head: RequestHead, client: str | None
    ) -> list[tuple[Entry, ...]]:
        """What is counted about a request, each descriptor as its entries.

        A descriptor with a header that the request does not have falls as a whole: it would count something else.

        Args:
            written: the descriptors of the Mapping in the domain.
            client: address of the client.
        """
        groups = [(*self.defaults, *labels) for labels in written] if written else [self.defaults]
        found = [[self._entry(label, head, client) for label in labels] for labels in groups if labels]
        return [tuple(each for each in entries if each) for entries in found if None not in entries]

    def _entry(self, label: Label, head: RequestHead, client: str | None) -> Entry | None:
        value: str | None = label.value
        if label.kind == "header":
            value = _header(head, label.value)
        elif label.kind == "remote_address":
            value = client or head.client
        elif label.kind == "source_cluster":
            value = self.source_cluster
        return None if value is None else (label.key, value)


def _header(head: RequestHead, name: str) -> str | None:
    """The first value of a header, or of what HTTP/2 has as one."""
    if name == ":method":
        return head.method
    raw: bytes | None
    if name == ":path":
        raw = head.mount.sent + head.path + head.query
    else:
        raw = head.header(b"host" if name in (":authority", "host") else name.encode())
    return None if raw is None else raw.decode("utf-8", "replace")
