"""The answer about recent requests."""

from urllib.parse import urlencode

from canary_mw.admin.answers.frame import answer_frame, iso
from canary_mw.admin.explaining.words import APP, title_of
from canary_mw.admin.models.operations import Fallback, RecentRequest, TrafficAnswer, TrafficFilter
from canary_mw.admin.releases.views import GRAY, ReleaseView, views_of
from canary_mw.admin.subject import Subject
from canary_mw.observability.figures.values import Figures
from canary_mw.observability.figures.values import RecentRequest as Recent
from canary_mw.rules.release import STABLE

MOST = 200
NO_FILTER: TrafficFilter = {"q": "", "release": None, "variant": None, "outcome": None}
_SAMPLE = (
    "A sample: at most 20 a second and worker, but every failure and every fallback up to 50 a second."
    " Values of a query are shown only where a rule looks at them."
)


def traffic_answer(subject: Subject, figures: Figures, wanted: TrafficFilter = NO_FILTER) -> TrafficAnswer:
    """The last decisions that a filter lets through, newest first."""
    views = {each.name: each for each in views_of(subject)}
    found = [shown for each in figures.recent if _matches(shown := _request(each, views.get(each.release)), wanted)]
    return {
        **answer_frame(subject, figures),
        "sample": _SAMPLE,
        "filter": wanted,
        "releases": sorted(views),
        "requests": found[:MOST],
    }


def _request(each: Recent, view: ReleaseView | None) -> RecentRequest:
    routed = bool(each.mapping or each.release)
    return {
        "at": iso(each.time),
        "request_id": each.request_id,
        "method": each.method,
        "host": each.host or None,
        "target": each.path + (f"?{each.query}" if each.query else ""),
        "service": each.service or None,
        "mapping": each.mapping or None,
        "release": each.release or None,
        "variant": each.variant or None if routed else None,
        "gray": _is_gray(each),
        "fallback": _fallback(each, view) if each.fallback else None,
        "reason": each.reason or ("only" if routed else "none"),
        "because": title_of(each.reason) if each.reason else "Only rule" if routed else "No rule",
        "detail": each.fallback and f"gray failed: {each.fallback}",
        "status": each.status,
        "took_ms": round(each.seconds * 1000, 3),
        "outcome": "fallback" if each.fallback else "failed" if each.failed else "answered",
        "explain": _question(each),
    }


def _fallback(each: Recent, view: ReleaseView | None) -> Fallback:
    service = " and ".join(view.services(STABLE)) if view else ""
    return {"service": service or APP, "status": each.status, "result": each.fallback}


def _is_gray(each: Recent) -> bool:
    return each.variant not in ("", STABLE) if each.release else each.variant == GRAY


def _question(each: Recent) -> str:
    """The query of the page Explain for the same request, as far as it is known."""
    path = each.path + (f"?{each.query}" if each.query else "")
    url = f"{each.scheme or 'http'}://{each.host}{path}" if each.host else path
    return urlencode({"method": each.method, "url": url, "client": each.client})


def _matches(shown: RecentRequest, wanted: TrafficFilter) -> bool:
    if wanted["release"] not in (None, shown["release"]) or wanted["outcome"] not in (None, shown["outcome"]):
        return False
    if wanted["variant"] is not None and not _is_variant(shown, wanted["variant"]):
        return False
    names = [shown["service"], shown["mapping"], shown["release"], shown["host"]]
    texts = [shown["target"], shown["request_id"], shown["method"], *(name or "" for name in names)]
    return wanted["q"].casefold() in "\n".join(texts).casefold()


def _is_variant(shown: RecentRequest, wanted: str) -> bool:
    """Whether a request got a variant; "gray" stands for all gray ones."""
    return shown["variant"] == wanted or (wanted == GRAY and shown["gray"])
