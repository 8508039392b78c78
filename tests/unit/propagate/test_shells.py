"""The lane in a view, in every place where a middleware can be."""

from typing import Any

import pytest
import shells
from rules import document
from shells import SHELLS, shop

from canary_mw import current
from canary_mw.middleware.audience import registry
from canary_mw.propagate.carried import carried

RULES = (
    document("shop", prefix="/shop/")
    + document("gray", prefix="/shop/", weight=0)
    + """---
apiVersion: canary-mw/v1
kind: GrayRelease
name: r
stable: shop
gray: {gray: 100}
sticky: [{header: k}]
"""
)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_view_has_the_lane(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    page = shells.page
    # That of Flask registers whom it asks for its user.
    monkeypatch.setattr(registry, "users", [])

    def noting(*about: Any) -> dict[str, Any]:
        found = current()
        seen.append(found and (found.lane, found.decision and found.decision.variant))
        return page(*about)

    monkeypatch.setattr(shells, "page", noting)
    with shop(shell, RULES, local=("shop", "gray"), trusted=["127.0.0.1"]) as asked:
        requests: list[Any] = [("/shop/", (("k", "1"), ("x-canary-lane", "a=b"))), ("/shop/", (("k", "2"),))]
        assert [answer.status for answer in asked.ask_all(*requests)] == [200, 200]
    assert seen == [("r=gray, a=b", "gray"), ("r=gray", "gray")]
    assert carried() is None
