"""Import paths of `GuardedProtocol` and `AdminProtocol` for the `http` setting of uvicorn; see `canary_mw.server`."""

from canary_mw.server.admin_protocol import AdminProtocol
from canary_mw.server.protocol import GuardedProtocol

__all__ = ["AdminProtocol", "GuardedProtocol"]
