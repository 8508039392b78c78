"""The last of three services in one lane: its release obeys what the first one has decided.

gunicorn -b 127.0.0.1:8003 stock_django:application
"""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from canary_mw import CanaryWSGIMiddleware

if not settings.configured:
    settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="for this example")


def stock(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"stock": request.environ["canary_mw.decision"].release.variant})  # type: ignore[attr-defined]


urlpatterns = [path("stock", stock)]

# One process is both versions.
rules = os.path.join(os.path.dirname(__file__), "stock.yaml")
names = ("stock", "stock-gray")
application = CanaryWSGIMiddleware(get_wsgi_application(), rules=rules, local=names, trusted=["127.0.0.1"])
