"""A process that serves a request, forks, and serves on both sides until the rules have changed, as uWSGI does.

It says what it sees: a line when the child has served its first request, and one at the end of each side. With an
argument it forks by libc, without the fork hooks of Python, as uWSGI does.
"""

import ctypes
import io
import json
import logging
import os
import sys
from typing import Any

from preforked import create_app

application = create_app()


def ask(path: str) -> Any:
    """What is answered there."""
    environ = {
        "REQUEST_METHOD": "GET",
        "RAW_URI": path,
        "HTTP_HOST": "shop.example",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
    }
    return json.loads(b"".join(application(environ, lambda _status, _headers, _exc_info=None: print)))


def seen() -> tuple[Any, ...]:
    """By which rules, with how many threads that follow them, and whether the upstream answers."""
    answer = ask("/shop/")
    return answer["mapping"], answer["watchers"], ask("/copies/")["who"]


def follow(who: str) -> None:
    """Serve until other rules are in force."""
    while ask("/shop/")["mapping"] != "shop-2":
        application.store.wait(application.store.generation + 1, 0.1)
    print(who, *seen(), flush=True)


def main() -> None:
    """Both sides."""
    # Only their own lines are read.
    logging.getLogger("canary_mw").setLevel(logging.WARNING)
    assert seen() == ("shop-1", 1, "gray")
    child = ctypes.PyDLL(None).fork() if sys.argv[1:] else os.fork()
    if child == 0:
        threads = len(os.listdir("/proc/self/task"))
        print("child begins", threads, *seen(), flush=True)
        follow("child")
        return
    follow("parent")
    print("child ended", os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
