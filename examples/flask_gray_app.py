"""The gray version of the shop in flask_app.py: the same page with another answer. It needs no middleware."""

from flask import Flask

app = Flask(__name__)


@app.get("/shop/")
def shop() -> dict[str, str]:
    """Return the version that answers."""
    return {"version": "gray"}
