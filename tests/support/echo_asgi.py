"""`echo_asgi:app`, for servers that import it: the echo app is the stable version, and gray is elsewhere.

Environment: `ECHO_RULES`, the file of the rules, `ECHO_GRAY` and `ECHO_SOCKETS`, the URLs of the gray version and
of its WebSockets.
"""

import os

from echo import asgi_app

from canary_mw import CanaryMiddleware

UPSTREAMS = {"gray": os.environ["ECHO_GRAY"], "sockets": os.environ["ECHO_SOCKETS"]}

app = CanaryMiddleware(asgi_app, rules=os.environ["ECHO_RULES"], local="stable", upstreams=UPSTREAMS)
