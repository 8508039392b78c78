"""A browser for all tests here, and the pages that it looks at."""

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import recorded_answers as recorded
from servers import serving_app
from starlette.applications import Starlette
from starlette.requests import Request as Asked
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from canary_mw.admin.errors import Refused
from canary_mw.admin.guard import Guard
from canary_mw.admin.pages.routes import Answerer, page_routes
from canary_mw.admin.streams import Streams

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Request

CHROMIUM = shutil.which("chromium")
AXE = Path(__file__).parents[1] / "browser" / "axe.min.js"
PATHS: dict[str, str] = {
    "overview": "",
    "release": "releases/checkout-2026-11",
    "rules": "rules",
    "explain": "explain?url=/checkout/",
    "traffic": "traffic",
    "endpoints": "endpoints",
    "reloads": "reloads",
    "about": "about",
}


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Chromium of the system: the driver brings none.

    It ends with the tests of a file: the driver keeps a loop running in this thread, which other tests cannot have.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


@dataclass
class Site:
    """The pages, served in a thread. What they show is changed by `answers`.

    Attributes:
        lost: whether requests are refused.
    """

    url: str = ""
    answers: dict[str, Mapping[str, Any]] = field(
        default_factory=lambda: {
            "overview": recorded.OVERVIEW,
            "release": recorded.RELEASE,
            "rules": recorded.RULES,
            "explain": recorded.EXPLAIN,
            "traffic": recorded.TRAFFIC,
            "endpoints": recorded.ENDPOINTS,
            "reloads": recorded.RELOADS,
            "about": recorded.ABOUT,
        }
    )
    streams: Streams = field(default_factory=lambda: Streams(lifetime=inf))

    def page(self, name: str) -> str:
        return f"{self.url}/ambassador/v0/diag/{PATHS.get(name, name)}"

    def app(self) -> ASGIApp:
        answerers: dict[Any, Answerer] = {name: self._answerer(name) for name in self.answers}
        app: ASGIApp = Guard(Starlette(routes=page_routes(answerers, self.streams, _at_once, JSONResponse)))
        return app

    def _answerer(self, name: str) -> Answerer:
        async def answerer(request: Asked) -> Mapping[str, Any]:
            wanted = request.path_params.get("name", recorded.RELEASE["name"])
            if name == "release" and wanted != self.answers["release"]["name"]:
                raise Refused(404, "no-release", f"no release is called {wanted}")
            return self.answers[name]

        return answerer


async def _at_once(job: Callable[[], str]) -> str:
    return job()


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve a site in a thread with a loop of its own."""
    ready = threading.Event()
    ends: list[Callable[[], object]] = []

    async def main() -> None:
        done, loop = asyncio.Event(), asyncio.get_running_loop()
        ends.append(lambda: loop.call_soon_threadsafe(done.set))
        async with serving_app(site.app(), lifespan="off") as port:
            site.url = f"http://127.0.0.1:{port}"
            ready.set()
            await done.wait()
            site.streams.stop()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert ready.wait(20)
        yield site
    finally:
        ends[0]()
        thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as served:
        yield served


@dataclass
class Seen:
    """What a page says where nobody looks: messages of the console, errors, and requests elsewhere."""

    told: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


class Visitor:
    """Opens pages and hears what goes wrong in them."""

    def __init__(self, browser: "Browser", site: Site) -> None:
        self.browser = browser
        self.site = site
        self.seen = Seen()
        self.contexts: list[BrowserContext] = []

    def open(self, name: str, width: int = 1280, **look: Any) -> "Page":
        """A page in a context of its own."""
        look = {"viewport": {"width": width, "height": 844 if width < 720 else 900}, "reduced_motion": "reduce", **look}
        context = self.browser.new_context(**look)
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: self.seen.told.append(message.text))
        page.on("pageerror", lambda error: self.seen.told.append(str(error)))
        page.on("dialog", lambda dialog: self.seen.told.append(dialog.message))
        page.on("request", self._note)
        page.goto(self.site.page(name))
        return page

    def _note(self, request: "Request") -> None:
        if not request.url.startswith(f"{self.site.url}/"):
            self.seen.outside.append(request.url)

    def close(self) -> None:
        for context in self.contexts:
            context.close()


@pytest.fixture
def visitor(browser: "Browser", site: Site) -> Iterator[Visitor]:
    """Whoever looks at pages; at the end no page has told anything, and none asked anybody outside."""
    visiting = Visitor(browser, site)
    yield visiting
    visiting.close()
    assert visiting.seen == Seen()
