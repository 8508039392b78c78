"""The routes of the pages: HTML of the answers of the API, the stream that keeps it up to date, and static files."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from canary_mw.admin.errors import Refused, error_response
from canary_mw.admin.pages import static_files
from canary_mw.admin.pages.frame import COLOURS, PAGES, ROOT, Look, Page, render, render_error
from canary_mw.admin.pages.live import Regions, updates
from canary_mw.admin.pages.wording import release_path
from canary_mw.admin.streams import Streams

COOKIE = "canary_mw_colours"
_YEAR = 365 * 24 * 3600

# The answer of the API to a request of a page; raises `Refused`.
Answerer = Callable[[Request], Awaitable[Mapping[str, Any]]]
# Runs what takes long, where it holds up no other request.
Run = Callable[[Callable[[], str]], Awaitable[str]]
AsJSON = Callable[[Any], Response]
Handler = Callable[[Request], Awaitable[Response]]
# An answer that all pages have the frame of.
_FRAME: Page = "about"


def page_routes(answerers: Mapping[Page, Answerer], streams: Streams, run: Run, as_json: AsJSON) -> list[Route]:
    """The routes of all pages that there are answerers of."""
    regions = Regions()
    return [
        Route("/", _redirect, methods=["GET"]),
        Route(ROOT.rstrip("/"), _redirect, methods=["GET"]),
        Route(ROOT + "static/{name}", _static, methods=["GET"]),
        Route(ROOT + "colours", _colours, methods=["GET"]),
        Route(ROOT + "events", _events(answerers, streams, regions, run), methods=["GET"]),
        *(
            Route(ROOT + _path(page, "{name:path}"), _page(page, answerers, run, as_json), methods=["GET"])
            for page in answerers
        ),
    ]


def _path(page: Page, name: str = "") -> str:
    """The path of a page behind `ROOT`."""
    return {"overview": "", "release": f"releases/{name}"}.get(page, page)


def _named(request: Request) -> dict[str, str]:
    """The parameters of the path; a name that a path cannot have stands in the query."""
    return {key: value for key, value in request.path_params.items() if value}


async def _redirect(request: Request) -> Response:
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(quote(_root(request)) + ROOT + query)


async def _static(request: Request) -> Response:
    found = static_files.static_file(request.path_params["name"])
    if found is None:
        return error_response(404, "not-found", "there is no such file")
    return Response(found.content, media_type=found.media_type, headers=static_files.HEADERS)


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", ""))


def _page(page: Page, answerers: Mapping[Page, Answerer], run: Run, as_json: AsJSON) -> Handler:
    async def handler(request: Request) -> Response:
        query = {**request.query_params, **_named(request)}
        look = _look(request, page, query)
        try:
            answer = await answerers[page](request)
        except Refused as refused:
            return await _refusal(request, refused, answerers, run)
        if query.get("json") in ("true", "1"):
            return as_json(answer)
        return HTMLResponse(await run(lambda: render(page, answer, look)))

    return handler


async def _refusal(request: Request, refused: Refused, answerers: Mapping[Page, Answerer], run: Run) -> Response:
    """A page that says why there is no other one."""
    if request.query_params.get("json") in ("true", "1") or _FRAME not in answerers:
        return error_response(refused.status, refused.code, refused.message)
    html, _ = await _refused(refused, _asked_for(request, {}), answerers, _look(request, "overview", {}), run)
    return HTMLResponse(html, refused.status)


async def _refused(
    refused: Refused, request: Request, answerers: Mapping[Page, Answerer], look: Look, run: Run, whole: bool = True
) -> tuple[str, str]:
    frame = await answerers[_FRAME](request)
    heading = "There is no such page" if refused.status == 404 else "This cannot be shown"
    return await run(lambda: render_error(heading, refused.message, frame, look, whole)), str(frame["now"])


def _asked_for(request: Request, query: Mapping[str, str]) -> Request:
    """The request with another query; `name` is what a path would have."""
    encoded = urlencode({key: value for key, value in query.items() if key != "name"}).encode()
    named = {"name": query["name"]} if "name" in query else {}
    return Request({**request.scope, "query_string": encoded, "path_params": named})


def _look(request: Request, page: Page, query: Mapping[str, str]) -> Look:
    colours = request.cookies.get(COOKIE, "auto")
    return _look_of(_root(request), page, query, colours if colours in COLOURS else "auto")


def _look_of(root: str, page: Page, query: Mapping[str, str], colours: str) -> Look:
    root = quote(root)
    asked = {key: value for key, value in query.items() if key != "name" or page != "release"}
    path = release_path(query.get("name", "")) if page == "release" else _path(page)
    path += ("&" if "?" in path else "?") + urlencode(asked) if asked else ""
    events = root + ROOT + "events?" + urlencode({**query, "page": page})
    return Look(root, path, events, colours)


def _events(answerers: Mapping[Page, Answerer], streams: Streams, regions: Regions, run: Run) -> Handler:
    """The stream of the page that the query names; the region alone with `once`."""

    async def handler(request: Request) -> Response:
        query = dict(request.query_params)
        once, page = query.pop("once", ""), _known(query.pop("page", ""), answerers)
        if page is None:
            return error_response(400, "bad-page", f"page must be one of {', '.join(answerers)}")
        # A question is answered once: it stays on the page as it is, and its predicates are not run each second.
        asked = _asked_for(request, {} if page == "explain" else query)
        look = _look_of(_root(request), page, query, "auto")

        async def make() -> tuple[str, str]:
            try:
                answer = await answerers[page](asked)
            except Refused as refused:
                # A release that is no more, for example: the page stays open, and says so.
                return await _refused(refused, _asked_for(request, {}), answerers, look, run, whole=False)
            return await run(lambda: render(page, answer, look, whole=False)), str(answer["now"])

        region = await regions.get(look.events, make)
        if once or request.method == "HEAD":
            return HTMLResponse(region.html)
        busy = "as many pages are open as there may be; this one asks now and then instead"
        stream = streams.open(updates(regions, look.events, make))
        return stream or error_response(503, "busy", busy, {"retry-after": "5"})

    return handler


def _known(page: str, answerers: Mapping[Page, Answerer]) -> Page | None:
    return next((each for each in answerers if each == page), None)


async def _colours(request: Request) -> Response:
    """Keep the chosen colours in a cookie, and go back to the page."""
    base = quote(_root(request)) + ROOT
    chosen = request.query_params.get("to", "auto")
    response = RedirectResponse(base + _local(request.query_params.get("from", "")), 303)
    if chosen in COLOURS:
        response.set_cookie(COOKIE, chosen, max_age=_YEAR, path=base, samesite="strict")
    return response


def _local(path: str) -> str:
    """A path behind `ROOT` to go back to; empty for what would lead elsewhere."""
    page, _, query = path.partition("?")
    parts = page.split("/")
    if any(part in (".", "..") for part in parts) or (page and parts[0] not in (*PAGES, "releases")):
        return ""
    return quote(page, safe="/%") + ("?" + urlencode(parse_qsl(query)) if query else "")
