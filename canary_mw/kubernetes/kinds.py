"""The kinds of objects that are read, and their addresses in the API."""

from dataclasses import dataclass

_METADATA = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1, application/json"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of objects.

    Attributes:
        group: API group, empty for the core.
        plural: name in addresses and in roles.
        versions: those that are read, the preferred one first.
        metadata_only: whether only labels and annotations are asked for.
    """

    group: str
    plural: str
    name: str
    versions: tuple[str, ...]
    metadata_only: bool

    @property
    def group_path(self) -> str:
        """Where the versions of the group are listed."""
        return f"/apis/{self.group}"

    def path(self, version: str, namespace: str) -> str:
        """Where objects are listed and watched; the empty namespace stands for all."""
        root = f"{self.group_path}/{version}" if self.group else f"/api/{version}"
        return f"{root}/namespaces/{namespace}/{self.plural}" if namespace else f"{root}/{self.plural}"

    def accept(self, *, is_list: bool) -> str:
        """The `Accept` header of a list or a watch."""
        return _METADATA.format("List" if is_list else "") if self.metadata_only else "application/json"


SERVICES = Kind("", "services", "Service", ("v1",), True)
INGRESSES = Kind("networking.k8s.io", "ingresses", "Ingress", ("v1",), True)
# In a cluster with Emissary's conversion webhook, any version may be the stored one, which works without the webhook.
MAPPINGS = Kind("getambassador.io", "mappings", "Mapping", ("v3alpha1", "v2", "v1"), False)
# What the endpoints of a Service are found by: its ports, and its slices.
SERVICE_PORTS = Kind("", "services", "Service", ("v1",), False)
ENDPOINT_SLICES = Kind("discovery.k8s.io", "endpointslices", "EndpointSlice", ("v1", "v1beta1"), False)

# The kinds that rules are read from.
KINDS = {kind.plural: kind for kind in (SERVICES, INGRESSES, MAPPINGS)}
