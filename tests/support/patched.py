"""`python -m patched HOST:PORT MODULE:FACTORY`: serve an app by gevent.pywsgi, and patch before its import."""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import sys
from importlib import import_module

from gevent.pywsgi import WSGIServer


def main(where: str, factory: str) -> None:
    """Serve until a signal ends the process."""
    host, _, port = where.partition(":")
    module, _, name = factory.partition(":")
    app = getattr(import_module(module), name)()
    WSGIServer((host, int(port)), app, log=None).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
