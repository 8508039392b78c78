"""The gray version of the shop in flask_app.py: the same page with another answer, and nothing left to decide."""

from flask import Flask

app = Flask(__name__)


@app.get("/shop/")
def shop() -> dict[str, str]:
    """Say which version answers."""
    return {"version": "gray"}
