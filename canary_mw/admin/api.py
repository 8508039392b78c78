"""Which answer belongs to which path: the JSON API, and the pages with the same names."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request

from canary_mw.admin.answers.about import about_answer
from canary_mw.admin.answers.endpoints import endpoints_answer
from canary_mw.admin.answers.figures import figures_answer
from canary_mw.admin.answers.reloads import reloads_answer
from canary_mw.admin.answers.rules import rules_answer
from canary_mw.admin.answers.traffic import traffic_answer
from canary_mw.admin.desk import Desk
from canary_mw.admin.errors import Refused
from canary_mw.admin.explaining.answer import explain_answer, explain_form
from canary_mw.admin.explaining.question import (
    BadQuestion,
    ExplainQuestion,
    question_of_form,
    question_of_json,
    shown_fields,
)
from canary_mw.admin.pages.frame import Page
from canary_mw.admin.parameters import json_body, rules_filter, traffic_filter, window_of
from canary_mw.admin.releases.listing import releases_answer
from canary_mw.admin.releases.overview import overview_answer
from canary_mw.admin.releases.release import release_answer
from canary_mw.admin.releases.views import find_release
from canary_mw.admin.subject import Subject
from canary_mw.observability.figures.values import Figures

Answering = Callable[[Desk, Request], Awaitable[Any]]


async def overview(desk: Desk, request: Request) -> Any:
    """All releases."""
    window = window_of(request.query_params)
    key = "overview", window, desk.subject.stamp()
    return await desk.ask(lambda subject, figures: overview_answer(subject, figures, window), key)


async def releases(desk: Desk, _: Request) -> Any:
    """All releases without their figures."""
    return await desk.ask(releases_answer)


async def release(desk: Desk, request: Request) -> Any:
    """One release."""
    window = window_of(request.query_params)
    # A client may take a segment of dots alone for a step: such a name stands in the query.
    name = request.path_params["name"] or request.query_params.get("name", "")

    def answer(subject: Subject, figures: Figures) -> Any:
        view = find_release(subject, name)
        if view is None:
            raise Refused(404, "unknown-release", "there is no release of this name; /api/v1/overview lists all")
        return release_answer(subject, figures, view, window)

    return await desk.ask(answer, ("release", name, window, desk.subject.stamp()))


async def traffic(desk: Desk, request: Request) -> Any:
    """Recent requests, filtered."""
    wanted = traffic_filter(request.query_params)
    return await desk.ask(lambda subject, figures: traffic_answer(subject, figures, wanted))


async def reloads(desk: Desk, _: Request) -> Any:
    """The last changes of the rules."""
    return await desk.ask(reloads_answer)


async def figures(desk: Desk, _: Request) -> Any:
    """The raw counts, of this moment."""
    return await desk.ask(figures_answer, anew=True)


async def rules(desk: Desk, request: Request) -> Any:
    """The rules, filtered."""
    wanted = rules_filter(request.query_params)
    return await desk.ask(lambda subject, figures: rules_answer(subject, figures, wanted))


async def endpoints(desk: Desk, _: Request) -> Any:
    """The addresses of services."""
    return await desk.ask(endpoints_answer)


async def about(desk: Desk, _: Request) -> Any:
    """The process itself."""
    return await desk.ask(about_answer)


async def explain(desk: Desk, request: Request) -> Any:
    """What would happen to a request, given by the fields of the form or as JSON."""
    if request.method == "POST":
        return await _explained(desk, question_of_json, await json_body(request))
    return await _explained(desk, question_of_form, request.query_params)


async def _explained(desk: Desk, read: Callable[[Any], ExplainQuestion], given: Any) -> Any:
    try:
        question = read(given)
    except BadQuestion as exc:
        raise Refused(400, "bad-request", str(exc)) from exc
    return await desk.ask(lambda subject, figures: explain_answer(subject, figures, question))


async def explain_page(desk: Desk, request: Request) -> Any:
    """The same for people: the form stays where it cannot be read, with the reason."""
    fields = request.query_params
    error = None
    if "url" in fields:
        try:
            return await explain(desk, request)
        except Refused as exc:
            error = exc.message
    return await desk.ask(lambda subject, figures: explain_form(subject, figures, shown_fields(fields), error))


# By the name of the path below /api/v1/ and of the page.
ANSWERS: dict[str, Answering] = {
    "overview": overview,
    "releases": releases,
    "releases/{name:path}": release,
    "rules": rules,
    "explain": explain,
    "traffic": traffic,
    "endpoints": endpoints,
    "reloads": reloads,
    "about": about,
    "figures": figures,
}
PAGES: dict[Page, Answering] = {
    "overview": overview,
    "release": release,
    "rules": rules,
    "explain": explain_page,
    "traffic": traffic,
    "endpoints": endpoints,
    "reloads": reloads,
    "about": about,
}
