"""Import path of `GuardedProtocol` for the `http` setting of uvicorn. See `canary_mw.server.protocol`."""

from canary_mw.server.protocol import GuardedProtocol

__all__ = ["GuardedProtocol"]
