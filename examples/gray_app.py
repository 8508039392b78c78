"""The gray version of the shop in fastapi_app.py: the same page with another answer. It needs no middleware."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/shop/")
async def shop() -> dict[str, str]:
    """Return the version that answers."""
    return {"version": "gray"}
