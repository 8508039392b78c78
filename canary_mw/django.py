"""Django: `"canary_mw.django.CanaryMiddleware"` in MIDDLEWARE, below AuthenticationMiddleware."""

from canary_mw.middleware.frameworks.django import CanaryMiddleware as CanaryMiddleware
