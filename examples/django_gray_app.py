"""The gray version of the shop in django_app.py: the same page with another answer, and nothing left to decide."""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="of an example that signs nothing")


def shop(request: HttpRequest) -> JsonResponse:
    """Say which version answers."""
    return JsonResponse({"version": "gray"})


urlpatterns = [path("shop/", shop)]
wsgi = get_wsgi_application()
