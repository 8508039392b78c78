"""What tests of Kubernetes sources need besides the API server: a loop, and files that lead to the server."""

import functools
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ParamSpec

from servers import run

P = ParamSpec("P")


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an asynchronous test in an event loop of its own."""

    @functools.wraps(test)
    def main(*args: P.args, **kwargs: P.kwargs) -> None:
        run(test(*args, **kwargs))

    return main


def kubeconfig(directory: Path, server: str, *, namespace: str = "shop", **user: Any) -> Path:
    """A kubeconfig with one context that leads to a server; `user` is how one logs in."""
    path = directory / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(json.dumps(config), encoding="utf-8")
    return path
