"""Three services in one lane, FastAPI, Flask and Django, and whom they ask: what their apps share.

Where the next service and a host off the list are found is in the environment.
"""

import os
from collections.abc import Callable
from typing import Any

import httpx
import requests
import urllib3

from canary_mw import propagate

MAPPINGS = """
apiVersion: getambassador.io/v2
kind: Mapping
name: app
prefix: /
service: app
---
apiVersion: getambassador.io/v2
kind: Mapping
name: app-gray
prefix: /
service: app
weight: 0
---
"""
ENTRY = (
    MAPPINGS
    + """
apiVersion: canary-mw/v1
kind: GrayRelease
name: chain
stable: app
gray: {gray: {weight: 50, mappings: [app-gray]}}
sticky: [{header: x-user}]
"""
)
# Of its own it would send everybody to gray: the lane decides.
STOCK = (
    MAPPINGS
    + """
apiVersion: canary-mw/v1
kind: GrayRelease
name: stock
lane: chain
stable: app
gray: {gray: {weight: 100, mappings: [app-gray]}}
sticky: [{header: x-user}]
"""
)

SyncGet = Callable[[str, dict[str, str]], Any]


def sync_clients() -> dict[str, SyncGet]:
    """Functions that get JSON, by the client that they use; connections are kept and shared."""
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=32))
    pool = urllib3.PoolManager(maxsize=32)
    client = httpx.Client(trust_env=False, follow_redirects=True)
    return {
        "requests": lambda url, headers: session.get(url, headers=headers, timeout=20).json(),
        "urllib3": lambda url, headers: pool.request("GET", url, headers=headers).json(),
        "httpx": lambda url, headers: client.get(url, headers=headers).json(),
    }


def told(*names: str) -> None:
    """Tell the services behind some variables of lanes, and nobody else."""
    propagate.install([os.environ[name].partition("//")[2] for name in names])
