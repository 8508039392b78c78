"""A shop whose stable version is this process, as an ASGI app, for servers in processes of their own."""

import os

from echo import asgi_app as app

from canary_mw import CanaryMiddleware


def create_app() -> CanaryMiddleware:
    """The app behind the middleware."""
    return CanaryMiddleware(app, rules=os.environ["PREFORKED_RULES"], local="shop-stable")
