"""Lines of the access log: what they hold, and that nothing in them can end a line or command a terminal."""

import json
from datetime import datetime
from typing import Any

import pytest

from canary_mw.observability.events import Finished
from canary_mw.observability.logs import lines
from canary_mw.observability.logs.lines import json_line, safe, text_line, timestamp

NOW = 1_795_795_200.0625
PLAIN = Finished("GET", "/shop/", 200, 0.0123456789, "shop_gray", "svc-gray:8080", "gray", bytes_out=512)
FULL = PLAIN._replace(
    release="shop-2026-11",
    drawn=True,
    key=12345,
    first_byte=0.01,
    client="10.1.2.3",
    upstream="10.0.0.3:8080",
    tries=2,
    request_id="7f3a",
    bytes_in=7,
    sent=True,
    answered_by="stable",
    fallback="503",
    auth="failed_open",
    auth_seconds=0.25,
    rate_limit="error",
    rate_limit_seconds=0.02,
)
HOSTILE = '\n\x1b[31m"\\\x7f\x9b\u202e\u2066\u200f\u061c\u2028end'


def test_a_line_is_a_json_object() -> None:
    assert json.loads(json_line(PLAIN, NOW)) == {
        "time": "2026-11-27T16:00:00.062+00:00",
        "method": "GET",
        "path": "/shop/",
        "status": 200,
        "seconds": 0.012346,
        "mapping": "shop_gray",
        "service": "svc-gray:8080",
        "variant": "gray",
        "reason": None,
        "bytes_out": 512,
    }


def test_what_is_known_besides_is_written() -> None:
    fields = json.loads(json_line(FULL, NOW))
    assert {name: fields[name] for name in fields.keys() - json.loads(json_line(PLAIN, NOW)).keys()} == {
        "release": "shop-2026-11",
        "first_byte": 0.01,
        "client": "10.1.2.3",
        "upstream": "10.0.0.3:8080",
        "tries": 2,
        "request_id": "7f3a",
        "bytes_in": 7,
        "sent": True,
        "answered_by": "stable",
        "fallback": "503",
        "auth": "failed_open",
        "auth_seconds": 0.25,
        "rate_limit": "error",
        "rate_limit_seconds": 0.02,
    }


def test_every_field_is_described_in_its_order() -> None:
    assert list(json.loads(json_line(FULL, NOW))) == list(lines.FIELDS)


def test_keys_of_users_are_in_no_line() -> None:
    assert "12345" not in json_line(FULL, NOW) + text_line(FULL, NOW)


def test_a_client_that_left_has_no_status() -> None:
    left = Finished("GET", "/", None, 1.0, reason="client left")
    assert json.loads(json_line(left, NOW))["status"] is None
    assert text_line(left, NOW) == '2026-11-27T16:00:00.062Z - "GET /" - 1.000000 - - - - - - 0 0 - "client left"'


def test_a_line_as_text() -> None:
    assert text_line(FULL._replace(reason="no answer"), NOW) == (
        '2026-11-27T16:00:00.062Z 10.1.2.3 "GET /shop/" 200 0.012346 shop_gray svc-gray:8080 gray shop-2026-11'
        ' 10.0.0.3:8080 7 512 2 7f3a "no answer; fallback: 503; auth: failed_open; rate_limit: error"'
    )


@pytest.mark.parametrize("name", ["method", "path", "mapping", "service", "variant", "release", "reason", "client"])
def test_hostile_text_stays_text(name: str) -> None:
    given: dict[str, Any] = {name: HOSTILE}
    record = FULL._replace(**given)
    assert json.loads(json_line(record, NOW))[name] == HOSTILE
    for line in (json_line(record, NOW), text_line(record, NOW)):
        assert line.isascii()
        assert line.isprintable()
    assert r"\x0a\x1b[31m\"\\\x7f\x9b\u202e\u2066\u200f\u061c\u2028end" in text_line(record, NOW)


def test_text_without_danger_is_written_as_it_is() -> None:
    assert safe("/shop/ünïcode?x=é") == "/shop/ünïcode?x=é"


def test_a_time_is_that_of_its_second() -> None:
    for now in (NOW, NOW + 0.5, NOW + 1.25, NOW):
        assert datetime.fromisoformat(timestamp(now) + "+00:00").timestamp() == pytest.approx(now, abs=0.0011)


def test_what_is_kept_of_decisions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_MOST_KEPT", 10)
    for number in range(100):
        record = PLAIN._replace(mapping=f"m{number}")
        assert json.loads(json_line(record, NOW))["mapping"] == f"m{number}"
    assert len(lines._json_parts) <= 10
