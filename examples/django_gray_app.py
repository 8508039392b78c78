"""The gray version of the shop in django_app.py: the same page with another answer. It needs no middleware."""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="of an example that signs nothing")


def shop(request: HttpRequest) -> JsonResponse:
    """Return the version that answers."""
    return JsonResponse({"version": "gray"})


urlpatterns = [path("shop/", shop)]
wsgi = get_wsgi_application()
