"""A shop in Flask that forwards a part of its requests to its gray version.

gunicorn --chdir examples flask_gray_app:app --bind 127.0.0.1:9001 &
gunicorn --chdir examples flask_app:app --bind 127.0.0.1:8000 --threads 16 &
curl -H 'gray: true' http://127.0.0.1:8000/shop/
"""

import os
from pathlib import Path

from flask import Flask, request

from canary_mw import CanaryWSGIMiddleware

RULES = os.environ.get("SHOP_RULES", str(Path(__file__).with_name("flask_rules")))
# In a cluster, DNS resolves the services of the rules. Elsewhere their URLs have to be given.
GRAY_URL = os.environ.get("SHOP_GRAY_URL", "http://127.0.0.1:9001")

app = Flask(__name__)
app.wsgi_app = CanaryWSGIMiddleware(  # type: ignore[method-assign]
    app.wsgi_app, rules=RULES, local="shop-stable", upstreams={"shop-gray": GRAY_URL}
)


@app.get("/shop/")
def shop() -> dict[str, str | None]:
    """Return the version that answers and the Mapping that chose it."""
    decision = request.environ["canary_mw.decision"]
    return {"version": "stable", "mapping": decision and decision.mapping.name}


@app.get("/about")
def about() -> dict[str, str]:
    """No Mapping matches this path, so the app always answers it."""
    return {"version": "stable"}
