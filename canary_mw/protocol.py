"""`canary_mw.protocol:GuardedProtocol`: the guarded protocol, for uvicorn's `http`. See `canary_mw.server`."""

from canary_mw.server.protocol import GuardedProtocol

__all__ = ["GuardedProtocol"]
