"""For the suites of the examples: the apps can be imported, and no test uses the network.

pytest -o usefixtures=all_stable examples/tests/test_*_app.py   every decision is stable
CANARY_MW_ENABLED=0 pytest examples/tests/test_*_app.py         the middlewares are off
pytest examples/tests/test_gray.py                              an app of the test answers for the gray version
"""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

# Of each test. One that passes by luck with nine requests in ten fails among so many.
REQUESTS = 1000


@pytest.fixture
def requests() -> int:
    """How many requests a test sends."""
    return REQUESTS


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse every connection and every look-up of a name, in all threads."""
    used: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> Any:
        used.append(arguments)
        raise OSError(f"the network is used: {arguments}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert used == []
