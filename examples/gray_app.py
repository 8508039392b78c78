"""The gray version of the shop in fastapi_app.py: the same page with another answer, and nothing left to decide."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/shop/")
async def shop() -> dict[str, str]:
    """Say which version answers."""
    return {"version": "gray"}
