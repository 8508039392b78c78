"""The frame of all pages, and their rendering."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from canary_mw.admin.models.common import InForce, Scope
from canary_mw.admin.pages.views import VIEWS
from canary_mw.admin.pages.wording import plural

Page = Literal["overview", "release", "rules", "explain", "traffic", "endpoints", "reloads", "about"]
PAGES: tuple[Page, ...] = get_args(Page)
# Where the pages begin, under the root of the admin app.
ROOT = "/ambassador/v0/diag/"
COLOURS = ("auto", "light", "dark")

# Path and title of the pages of the navigation.
_NAVIGATION: list[tuple[str, str, str]] = [
    ("overview", "", "Overview"),
    *((name, name, name.capitalize()) for name in PAGES[2:]),
]


class Look(NamedTuple):
    """How and where a page is shown.

    Attributes:
        root: path of the admin app; empty where it is at the root.
        path: path of the page behind `base`, with its query.
        events: of the stream that keeps the page up to date.
        colours: "auto", "light" or "dark".
    """

    root: str
    path: str
    events: str
    colours: str

    @property
    def base(self) -> str:
        """Path under which the pages lie."""
        return self.root + ROOT

    @property
    def next_colours(self) -> str:
        """What the button of the colours changes to."""
        return COLOURS[(COLOURS.index(self.colours) + 1) % len(COLOURS)]

    @property
    def pages(self) -> list[tuple[str, str, str]]:
        """Key, path and title of each page of the navigation."""
        return _NAVIGATION


class Banner(NamedTuple):
    """What is wrong with what the page shows."""

    headline: str
    text: str
    bad: bool


def render(page: Page, answer: Mapping[str, Any], look: Look, whole: bool = True) -> str:
    """A page of an answer of the API.

    Args:
        whole: the document; otherwise the part of it that is kept up to date.
    """
    in_force: InForce = answer.get("in_force") or answer["rules"]
    name = f"{answer['name']} · Release" if page == "release" else page.capitalize()
    shown = {
        "title": f"{name} · canary-mw",
        "section": "overview" if page == "release" else page,
        "banners": list(banners(answer["scope"], in_force)),
        **VIEWS[page](answer, in_force),
    }
    return _filled(page, answer, in_force, look, whole, shown)


def render_error(heading: str, message: str, answer: Mapping[str, Any], look: Look, whole: bool = True) -> str:
    """The page for what there is not; `answer` has the frame of any page."""
    in_force: InForce = answer.get("in_force") or answer["rules"]
    shown = {"title": f"{heading} · canary-mw", "section": "", "heading": heading, "message": message, "banners": []}
    return _filled("error", answer, in_force, look, whole, shown)


def _filled(
    template: str, answer: Mapping[str, Any], in_force: InForce, look: Look, whole: bool, shown: dict[str, Any]
) -> str:
    # A process whose pages nobody opens does without jinja2.
    from canary_mw.admin.pages.environment import environment

    found = environment().get_template(f"{template}.html")
    return found.render(answer=answer, in_force=in_force, look=look, whole=whole, **shown)


def banners(scope: Scope, in_force: InForce) -> list[Banner]:
    """What has to be known about all figures of the page."""
    found = []
    behind, silent, of = scope["behind"], scope["silent"], plural(scope["workers"], "worker")
    if behind:
        runs = "runs" if len(behind) == 1 else "run"
        since = f" since {in_force['since'][11:19]}" if in_force["since"] else ""
        headline = f"{len(behind)} of {of} still {runs} older rules."
        text = f"The others have had {in_force['generation']}{since}. {_processes(behind)} busy, or hanging."
        found.append(Banner(headline, text, True))
    if silent:
        are = "is" if len(silent) == 1 else "are"
        headline = f"{len(silent)} of {of} {are} silent."
        text = f"{_processes(silent)} busy, or hanging; what they counted so far is in the sums."
        found.append(Banner(headline, text, True))
    if not scope["complete"]:
        text = "What the others count is not in them."
        found.append(Banner(f"Figures of {scope['reporting']} of {of}.", text, False))
    return found


def _processes(pids: list[int]) -> str:
    """The workers, with a verb behind them."""
    names = ", ".join(map(str, pids))
    return f"Worker {names} is" if len(pids) == 1 else f"Workers {names} are"
