"""`canary_mw.proxy:create_app`: import path of the standalone proxy, for servers. See `canary_mw.server.app`."""

from canary_mw.server.app import Proxy, create_app

__all__ = ["Proxy", "create_app"]
