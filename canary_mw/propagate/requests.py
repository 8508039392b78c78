"""Lanes on requests of requests, without patches: an adapter for a session."""

from typing import Any

import requests
from requests.adapters import HTTPAdapter

from canary_mw.propagate.carried import headers_for

_PORTS = {"http": 80, "https": 443}


class PropagatingAdapter(HTTPAdapter):
    """An adapter that tells hosts of the list of the lanes of the present request.

    The request that is sent is a copy: a session follows redirects with that of the app.
    """

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """See requests."""
        added = self._headers_for(request)
        if not added:
            return super().send(request, *args, **kwargs)
        sent = request.copy()
        sent.headers.update(added)
        response = super().send(sent, *args, **kwargs)
        response.request = request
        return response

    def _headers_for(self, request: requests.PreparedRequest) -> dict[str, str]:
        parts = requests.compat.urlparse(request.url or "")
        return headers_for(parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0), request.headers)
