"""A shop in Django whose signed-in users with the plan "pro" get its gray version, as WSGI and as ASGI.

gunicorn --chdir examples django_gray_app:wsgi --bind 127.0.0.1:9001 &
gunicorn --chdir examples pro_django:wsgi --bind 127.0.0.1:8000 --threads 16 &
uvicorn --app-dir examples pro_django:asgi --port 8001 &
curl -H 'authorization: Bearer ida-token' http://127.0.0.1:8000/shop/ http://127.0.0.1:8001/shop/
"""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

RULES = Path(__file__).with_name("pro_rules")
GRAY_URL = os.environ.get("SHOP_GRAY_URL", "http://127.0.0.1:9001")
PLANS = {"ida": "pro", "otto": "free"}


class SignIn:
    """Signs in by a token. A project has SessionMiddleware and AuthenticationMiddleware in its place."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Set the user."""
        name = request.headers.get("authorization", "").removeprefix("Bearer ").removesuffix("-token")
        request.user = SimpleNamespace(id=name, plan=PLANS.get(name), is_authenticated=name in PLANS)
        return self._get_response(request)


# A project has these in its settings.py.
settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of an example that signs nothing",
    MIDDLEWARE=[f"{__name__}.SignIn", "canary_mw.django.CanaryMiddleware"],
    CANARY_MW={"rules": RULES, "local": "shop-stable", "upstreams": {"shop-gray": GRAY_URL}},
)


def shop(request: HttpRequest) -> JsonResponse:
    """Return the version that answers."""
    return JsonResponse({"version": "stable"})


urlpatterns = [path("shop/", shop)]
wsgi = get_wsgi_application()
asgi = get_asgi_application()
