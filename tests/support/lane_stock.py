"""The third service of `lane_chain`: Django, whose release obeys the lane."""

import os
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponseRedirect, JsonResponse
from django.urls import path
from lane_chain import STOCK

from canary_mw import CanaryWSGIMiddleware, StaticSource


def stock(request: HttpRequest) -> JsonResponse:
    """Who is asked, by whom."""
    decision = request.environ["canary_mw.decision"]
    return JsonResponse({"stock": decision.release.variant, "why": decision.release.reason})


def to_foreign(request: HttpRequest) -> HttpResponseRedirect:
    """To a host off the list."""
    return HttpResponseRedirect(f"{os.environ['FOREIGN']}/redirected")


urlpatterns = [path("stock", stock), path("to-foreign", to_foreign)]


def create_app() -> Any:
    """The app, which believes its machine."""
    settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="of no use")
    return CanaryWSGIMiddleware(get_wsgi_application(), rules=StaticSource(STOCK), local="app", trusted=["127.0.0.1"])
