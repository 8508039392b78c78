"""A shop in Django that forwards a part of its requests to its gray version, as WSGI and as ASGI.

gunicorn --chdir examples django_gray_app:wsgi --bind 127.0.0.1:9001 &
gunicorn --chdir examples django_app:wsgi --bind 127.0.0.1:8000 --threads 16 &
uvicorn --app-dir examples django_app:asgi --port 8001 &
curl -H 'gray: true' http://127.0.0.1:8000/shop/ http://127.0.0.1:8001/shop/
"""

import os
from pathlib import Path

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from canary_mw import CanaryMiddleware, CanaryWSGIMiddleware

RULES = os.environ.get("SHOP_RULES", str(Path(__file__).with_name("django_rules")))
# In a cluster, DNS resolves the services of the rules. Elsewhere their URLs have to be given.
UPSTREAMS = {"shop-gray": os.environ.get("SHOP_GRAY_URL", "http://127.0.0.1:9001")}

# A project has these in its settings.py, and the two lines at the end in its wsgi.py or asgi.py.
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="of an example that signs nothing")


def shop(request: HttpRequest) -> JsonResponse:
    """Return the version that answers and the Mapping that chose it."""
    scope = getattr(request, "scope", {})
    decision = scope.get("canary_mw") or request.META.get("canary_mw.decision")
    return JsonResponse({"version": "stable", "mapping": decision and decision.mapping.name})


def about(request: HttpRequest) -> JsonResponse:
    """No Mapping matches this path, so the app always answers it."""
    return JsonResponse({"version": "stable"})


urlpatterns = [path("shop/", shop), path("about", about)]
wsgi = CanaryWSGIMiddleware(get_wsgi_application(), rules=RULES, local="shop-stable", upstreams=UPSTREAMS)
asgi = CanaryMiddleware(get_asgi_application(), rules=RULES, local="shop-stable", upstreams=UPSTREAMS)
