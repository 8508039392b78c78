"""A shop whose stable version is this process, for servers in processes of their own: it says who answers and why.

Environment: `PREFORKED_RULES`, the folder of the rules, and `PREFORKED_STARTED`, where they are loaded before any fork.
"""

import json
import os
from collections.abc import Iterable

from servers import mapping
from wsgiservers import respond

from canary_mw import CanaryWSGIMiddleware
from canary_mw.forking import SystemThread, running_threads
from canary_mw.types import Environ, StartResponse


def rules(number: int, upstream: int) -> str:
    """Mappings of which one bears a number; who sends "gray: true" gets the upstream on that port."""
    gray = mapping("gray", "/shop/", f"127.0.0.1:{upstream}", rewrite='""', headers="{gray: 'true'}")
    copies = mapping("copies", "/copies/", f"127.0.0.1:{upstream}")
    return mapping(f"shop-{number}", "/shop/", "shop-stable") + gray + copies


def runs(thread: SystemThread) -> bool:
    """Whether it is a thread of this process, and not one of the parent's."""
    # One that has just begun has no number yet.
    return thread.native_id is None or os.path.exists(f"/proc/self/task/{thread.native_id}")


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Who answers, by which rules, and the id of the request."""
    decision = environ["canary_mw.decision"]
    answer = {
        "who": "stable",
        "pid": os.getpid(),
        "mapping": decision and decision.mapping.name,
        "id": environ.get("HTTP_X_ID"),
        "watchers": sum(each.name == "canary-mw-rules" for each in running_threads() if runs(each)),
    }
    return respond(start_response, json.dumps(answer).encode())


def create_app() -> CanaryWSGIMiddleware:
    """The app behind the middleware."""
    made = CanaryWSGIMiddleware(app, rules=os.environ["PREFORKED_RULES"], local="shop-stable")
    if "PREFORKED_STARTED" in os.environ:
        made.start()
    return made
