"""What a request that is traced tells of its way; the clock and the ids are those of whoever made it."""

from typing import Protocol

from canary_mw.forwarding.messages import Tries


class RequestTrace(Protocol):
    """A request that is traced."""

    def tries(self, namespace: str, call: str = "") -> Tries:
        """What is told of attempts at one upstream.

        Args:
            namespace: of the Mapping.
            call: kind and name of the document that names the service which is asked; "" for an upstream.
        """
