"""The answer about how far all releases are, without their figures."""

from canary_mw.admin.answers.frame import answer_frame
from canary_mw.admin.models.releases import ListedRelease, ReleasesAnswer
from canary_mw.admin.releases.views import ReleaseView, match_of, services_of, views_of
from canary_mw.admin.subject import Subject
from canary_mw.observability.figures.values import Figures


def releases_answer(subject: Subject, figures: Figures) -> ReleasesAnswer:
    """All releases, by name."""
    views = sorted(views_of(subject), key=lambda each: each.name)
    return {**answer_frame(subject, figures), "releases": [_listed(subject, each) for each in views]}


def _listed(subject: Subject, view: ReleaseView) -> ListedRelease:
    return {
        "name": view.name,
        "document": view.compiled is not None,
        "match": match_of(view),
        "services": services_of(view),
        "weights": view.weights,
        "rollout": subject.rollout(view.name),
    }
