"""A small auth service in FastAPI: it knows who has a token, and says so in a header.

uvicorn --app-dir examples auth_service:app --port 3000 &
uvicorn --app-dir examples guarded_app:app --port 8000 &
curl -i http://127.0.0.1:8000/shop/
curl -i -H 'authorization: Bearer alice-token' http://127.0.0.1:8000/shop/
"""

from typing import Annotated

from fastapi import FastAPI, Header, Response

TOKENS = {"alice-token": ("alice", "customer"), "bob-token": ("bob", "tester")}

# Every path below /check is asked about, so FastAPI's own pages are off.
app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


@app.api_route("/check/{path:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def check(path: str, authorization: Annotated[str, Header()] = "") -> Response:
    """Allow a request by 200, with headers about its sender; refuse it by any other answer."""
    known = TOKENS.get(authorization.removeprefix("Bearer "))
    if known is None:
        return Response("a token is needed\n", 401, {"www-authenticate": "Bearer"}, "text/plain")
    user, group = known
    return Response(headers={"x-user": user, "x-group": group})
