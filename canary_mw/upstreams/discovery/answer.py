"""What an API says of the endpoints of a Service."""

from typing import NamedTuple


class Answer(NamedTuple):
    """Where requests to a Service go.

    Attributes:
        addresses: of its usable endpoints, each with its port; None where its name is to be looked up by DNS.
        reason: why there is no endpoint, or why DNS is used.
    """

    addresses: tuple[tuple[str, int], ...] | None
    reason: str = ""
