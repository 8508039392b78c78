"""Answers of the admin port as of one moment, for pictures and for tests in a browser: invented figures.

They are written with what the canary release of a shop looks like: one release that fails, one that is slower, and four
that need nobody.
"""

import math
import random
from datetime import UTC, datetime, timedelta

from canary_mw.admin.models.common import ExcerptLine, Frame, InForce, Place
from canary_mw.admin.models.explain import ExplainAnswer
from canary_mw.admin.models.figures import Difference, Interval, Measured, Series, SeriesOfVariant, VariantFigures
from canary_mw.admin.models.operations import (
    AboutAnswer,
    Endpoint,
    EndpointsAnswer,
    RecentRequest,
    ReloadsAnswer,
    TrafficAnswer,
)
from canary_mw.admin.models.release import ReleaseAnswer
from canary_mw.admin.models.releases import Overview, Release, Verdict
from canary_mw.admin.models.rules import Member, Rule, RulesAnswer, RuleState
from canary_mw.rollout.sentence import State

NOW = datetime(2026, 11, 27, 14, 7, 0, tzinfo=UTC)
LABELS: dict[State, str] = {
    "worse": "Gray is worse",
    "slower": "Gray is slower",
    "split_off": "Split is off",
    "not_enough": "Not enough yet",
    "same": "No difference seen",
    "better": "Gray is better",
    "off": "Off",
}
_SECONDS = 300


def at(minute: float, second: float = 0) -> str:
    """A time so many minutes before now."""
    return (NOW - timedelta(minutes=minute, seconds=second)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


FRAME: Frame = {
    "now": at(0),
    "version": "0.1.0",
    "scope": {
        "pod": "gateway-7c9f-x2k4q",
        "workers": 4,
        "reporting": 4,
        "complete": True,
        "shared": True,
        "silent": [],
        "behind": [],
    },
}
IN_FORCE: InForce = {"generation": 42, "since": at(3, 47.582), "workers_on_it": 4, "problems": 2, "error": None}


def wilson(part: int, whole: int) -> Measured:
    """A rate with its 95 % interval."""
    if not whole:
        return {"value": None, "low": None, "high": None}
    z, rate = 1.96, part / whole
    middle = rate + z * z / (2 * whole)
    width = z * math.sqrt(rate * (1 - rate) / whole + z * z / (4 * whole * whole))
    scale = 1 + z * z / whole
    return {"value": rate, "low": max((middle - width) / scale, 0.0), "high": (middle + width) / scale}


def around(value: float, width: float) -> Measured:
    return {"value": value, "low": value * (1 - width), "high": value * (1 + width)}


def variant(service: str, requests: int, errors: int, times: tuple[float, float, float]) -> VariantFigures:
    width = 1.2 / math.sqrt(max(requests, 1))
    p50, p95, p99 = (around(value, width * factor) for value, factor in zip(times, (1.4, 3, 6), strict=True))
    return {
        "services": [service],
        "requests": requests,
        "rps": requests / _SECONDS,
        "errors": errors,
        "error_rate": wilson(errors, requests),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "status": {"2xx": requests - errors, "5xx": errors},
    }


def series(seed: int, a_minute: int, rates: list[float], p95: float) -> SeriesOfVariant:
    """An hour by minutes around these rates, with some noise."""
    drawn = random.Random(seed)
    requests = [max(round(drawn.gauss(a_minute, a_minute * 0.03)), 1) for _ in rates]
    errors = [
        min(max(round(drawn.gauss(rate * n, math.sqrt(rate * n))), 0), n)
        for rate, n in zip(rates, requests, strict=True)
    ]
    found = [wilson(part, whole) for part, whole in zip(errors, requests, strict=True)]
    times = [p95 * drawn.gauss(1, 0.03) for _ in rates]
    width = 1.6 / math.sqrt(a_minute)
    return {
        "requests": requests,
        "errors": errors,
        "error_rate": [each["value"] for each in found],
        "error_low": [each["low"] for each in found],
        "error_high": [each["high"] for each in found],
        "p95_ms": list(times),
        "p95_low": [each * (1 - width) for each in times],
        "p95_high": [each * (1 + width) for each in times],
    }


def verdict(
    state: State,
    headline: str,
    details: str,
    todo: str = "",
    line: int | None = None,
    file: str = "rules/checkout.yaml",
) -> Verdict:
    return {
        "variant": "gray",
        "state": state,
        "label": LABELS[state],
        "sentence": f"{headline} {details}".strip(),
        "headline": headline,
        "details": details,
        "since": at(20),
        "ln_e": None,
        "what_to_do": todo,
        "command": None,
        "source": {"file": file, "line": line} if line else None,
    }


def between(low: float, high: float) -> Interval:
    return {"low": low, "high": high}


def difference(errors: Interval, p95: Interval) -> Difference:
    return {"error_rate": errors, "p50_ms": between(-1.2, 2.8), "p95_ms": p95, "p99_ms": between(-24, 61)}


def release(
    name: str,
    said: Verdict,
    weight: float,
    stable: VariantFigures,
    gray: VariantFigures | None,
    apart: Difference | None,
    match: tuple[str | None, str],
) -> Release:
    drawn = stable["requests"] + (gray["requests"] if gray else 0)
    seen = 100 * gray["requests"] / drawn if gray else 0.0
    return {
        "name": name,
        "document": True,
        "match": {"host": match[0], "prefix": match[1]},
        "services": [*stable["services"], *(gray["services"] if gray else [])],
        "weights": {"stable": 100 - weight, "gray": weight},
        "seen": {"stable": 100 - seen, "gray": seen},
        "seen_percent": seen,
        "requests": drawn,
        "needs_you": said["state"] in ("worse", "slower", "split_off"),
        "rollout": None,
        "last_gray": at(0) if gray else at(167),
        "verdict": said,
        "variants": {"stable": stable, **({"gray": gray} if gray else {})},
        "difference": apart,
        "verdicts": {"gray": said},
        "differences": {"gray": apart},
        "series": None,
        "events": [],
    }


_BEFORE, _RISE, _AFTER = 35, 8, 17
_CHECKOUT_SERIES: Series = {
    "start": at(60),
    "step_seconds": 60,
    "stable": series(1, 9_970, [0.0041] * 60, 118),
    "gray": series(2, 1_900, [0.005] * _BEFORE + [0.005 + 0.0033 * n for n in range(_RISE)] + [0.0314] * _AFTER, 127),
}
CHECKOUT: Release = {
    **release(
        "checkout-2026-11",
        verdict(
            "worse",
            "Gray fails more often: 3.1 % of its requests against 0.4 %.",
            "Very unlikely to be chance. It began with the step to 20 % at 13:41. Stable stepped in for 291 of the 392"
            " failures, so clients saw 101.",
            "take gray back: `gray: 0` in rules/checkout.yaml:16.",
            16,
        ),
        20.0,
        variant("shop-stable", 49_870, 204, (31, 118, 290)),
        variant("shop-gray", 12_480, 392, (32, 127, 310)),
        difference(between(0.0242, 0.0308), between(-2, 19)),
        ("shop.example", "/checkout/"),
    ),
    "series": _CHECKOUT_SERIES,
    "events": [
        {"at": at(54, 20), "kind": "weight", "text": "weight 5 → 10"},
        {"at": at(25, 53), "kind": "weight", "text": "weight 10 → 20"},
    ],
}
SEARCH: Release = {
    **release(
        "search-ranker-v7",
        verdict(
            "slower",
            "Gray is slower: 95 of 100 answers take up to 212 ms, against 148 ms.",
            "It does not fail more often: 0.31 % against 0.30 %.",
            "nothing breaks, but do not widen it before the time is understood (rules/search.yaml:12).",
            12,
            "rules/search.yaml",
        ),
        5.0,
        variant("search-v6", 38_930, 117, (44, 148, 320)),
        variant("search-v7", 2_090, 7, (46, 212, 402)),
        difference(between(-0.0018, 0.0034), between(47, 82)),
        (None, "/search/"),
    ),
    "series": {
        "start": at(60),
        "step_seconds": 60,
        "stable": series(3, 7_780, [0.003] * 60, 148),
        "gray": series(4, 418, [0.0031] * 60, 211),
    },
}
PROFILE = release(
    "profile-api",
    verdict("same", "No difference seen.", "In errors it lies between −0.1 and +0.2 points."),
    50.0,
    variant("profile-a", 13_200, 20, (18, 64, 120)),
    variant("profile-b", 13_230, 19, (18, 63, 118)),
    difference(between(-0.001, 0.001), between(-3, 3)),
    ("api.example", "/profile/"),
)
INVOICES = release(
    "invoices-pdf",
    verdict("not_enough", "Not enough yet: 27 gray requests.", "At this rate about 9 minutes more."),
    10.0,
    variant("invoices", 244, 3, (620, 1_900, 2_400)),
    variant("invoices-v2", 27, 0, (600, 1_700, 2_300)),
    difference(between(-0.03, 0.11), between(-700, 600)),
    (None, "/invoices/"),
)
RECOMMENDATIONS = release(
    "recommendations",
    verdict("same", "No difference seen.", "In errors it lies between −0.1 and +0.1 points."),
    10.0,
    variant("recs", 57_240, 60, (9, 22, 60)),
    variant("recs-next", 6_360, 7, (9, 23, 61)),
    difference(between(-0.0006, 0.0012), between(-1, 2)),
    ("shop.example", "/recs/"),
)
LOGIN = release(
    "login-cookie",
    verdict("off", "Off: gray's weight is 0.", "No gray request since 11:20."),
    0.0,
    variant("login", 9_420, 12, (17, 48, 90)),
    None,
    None,
    ("id.example", "/login/"),
)

OVERVIEW: Overview = {
    **FRAME,
    "rules": IN_FORCE,
    "window": {"name": "5m", "seconds": 300.0},
    "finding": "checkout-2026-11 needs you: gray is failing.",
    "summary": "2 of 6 releases need a look, 4 do not. Compared over the last 5 minutes, stable beside gray in the same"
    " time.",
    "totals": {
        "requests": 119_400,
        "rps": 398.0,
        "gray_share": 0.142,
        "errors": 848,
        "error_rate": 0.0071,
        "p95_ms": 131.0,
    },
    "releases": [CHECKOUT, SEARCH, INVOICES, PROFILE, RECOMMENDATIONS, LOGIN],
}


def lines(first: int, *texts: str, marked: int | None = None) -> list[ExcerptLine]:
    return [{"line": first + n, "text": text, "marked": first + n == marked} for n, text in enumerate(texts)]


RELEASE: ReleaseAnswer = {
    **FRAME,
    **CHECKOUT,
    "verdict": {**CHECKOUT["verdict"], "command": "canary-mw release abort checkout-2026-11"},
    "in_force": IN_FORCE,
    "evidence": [],
    "window": {"name": "5m", "seconds": 300.0},
    "quarters": [{"start": at(60 - 15 * quarter), "variants": CHECKOUT["variants"]} for quarter in range(4)],
    "reasons": [
        {
            "reason": "sticky",
            "title": "Sticky key",
            "detail": "header x-user-id, cookie uid",
            "requests": {"stable": 47_048, "gray": 11_690},
        },
        {
            "reason": "new",
            "title": "New cookie issued",
            "detail": "no key was there",
            "requests": {"stable": 2_810, "gray": 702},
        },
        {
            "reason": "choice:header",
            "title": "Choice",
            "detail": "x-gray from a trusted peer",
            "requests": {"stable": 12, "gray": 88},
        },
        {
            "reason": "audience",
            "title": "Not in the audience",
            "detail": "beta_testers said no",
            "requests": {"stable": 0},
        },
        {
            "reason": "fallback",
            "title": "Fallback",
            "detail": "a gray try failed, stable answered",
            "requests": {"stable": 291},
        },
    ],
    "failures": [
        {"variant": "gray", "kind": "503", "text": "503 sent by shop-gray", "count": 291},
        {"variant": "gray", "kind": "timeout", "text": "504, no answer in 3 s", "count": 101},
        {"variant": "gray", "kind": "connect", "text": "connection refused", "count": 0},
    ],
    "clients_saw": {
        "failures": 392,
        "stepped_in": 291,
        "clients": 101,
        "text": "Clients saw 101 of these 392: POSTs, which are never sent twice. Stable answered the other 291"
        " (safety net: 0.5 of 100 requests, 20 are allowed).",
    },
    "choice": {
        "steps": [
            {
                "name": "choice",
                "title": "Choice",
                "text": "Header x-gray says always or never, from trusted peers only",
            },
            {"name": "audience", "title": "Audience", "text": "Predicate beta_testers: everybody else stays on stable"},
            {
                "name": "sticky",
                "title": "Sticky key",
                "text": "Header x-user-id, else cookie uid; without either a cookie is issued",
            },
            {
                "name": "fallback",
                "title": "Safety net",
                "text": "A gray try that ends in connect, timeout or 502–504 is answered by stable; at most 20 % of all"
                " requests",
            },
        ],
        "ring": {
            "salt": "checkout-2026-11",
            "slots": 1_000_000,
            "ranges": {"gray": [[0, 200_000]]},
            "before": [100_000],
        },
    },
    "answers": [
        {"status": "2xx", "note": "", "requests": {"stable": 49_102, "gray": 11_871}},
        {"status": "3xx", "note": "", "requests": {"stable": 388, "gray": 98}},
        {"status": "4xx", "note": "not counted as errors", "requests": {"stable": 176, "gray": 119}},
        {"status": "503", "note": "sent by shop-gray", "requests": {"stable": 3, "gray": 291}},
        {"status": "504", "note": "over 3 s", "requests": {"stable": 201, "gray": 101}},
    ],
    "rules": [
        {
            "name": "checkout-2026-11",
            "kind": "GrayRelease",
            "variant": None,
            "file": "rules/checkout.yaml",
            "line": 9,
            "order": None,
            "excerpt": lines(
                9,
                "kind: GrayRelease",
                "name: checkout-2026-11",
                "host: shop.example",
                "prefix: /checkout/",
                "stable: shop-stable",
                "sticky: {header: x-user-id, cookie: uid}",
                "# one step an hour, then 50",
                "gray: 20",
            ),
        }
    ],
    "changes": [
        {"at": at(25, 53), "generation": 42, "text": "weight 10 → 20, rules 41 → 42"},
        {"at": at(54, 20), "generation": 41, "text": "weight 5 → 10, rules 40 → 41"},
        {"at": at(68, 58), "generation": 40, "text": "release first seen, weight 5"},
    ],
    "live_on": 4,
    "live_since": at(25, 53),
}


def member(service: str, percent: float, place: tuple[str, int], *, gray: bool = False, copy: bool = False) -> Member:
    return {
        "mapping": service,
        "namespace": None,
        "service": service,
        "variant": "gray" if gray else "stable",
        "gray": gray,
        "local": service == "local",
        "copy": copy,
        "percent": percent,
        "file": place[0],
        "line": place[1],
    }


_STATES: dict[RuleState, str] = {
    "live": "Live",
    "last_good": "Last good kept",
    "never_reached": "Never reached",
    "ignored": "Ignored",
}


def rule(
    order: int,
    match: str,
    members: list[Member],
    requests: int,
    *conditions: str,
    state: RuleState = "live",
    why: str = "",
    hit: float | None = 0.0,
    precedence: int = 0,
) -> Rule:
    host, prefix = match.split()
    return {
        "order": order,
        "name": members[0]["mapping"],
        "host": None if host == "*" else host,
        "prefix": prefix,
        "kind": "regex" if prefix.startswith("^") else "prefix",
        "conditions": list(conditions),
        "precedence": precedence,
        "members": members,
        "state": state,
        "label": _STATES[state],
        "why": why,
        "release": None,
        "source": [{"file": each["file"], "line": each["line"]} for each in members],
        "requests": requests,
        "ever": requests,
        "last_hit": None if hit is None else at(0, hit),
    }


_C, _S, _I, _P, _L = "checkout.yaml", "search.yaml", "invoices.yaml", "profile.yaml", "login.yaml"
RULES: RulesAnswer = {
    **FRAME,
    "in_force": IN_FORCE,
    "finding": "212 of 214 rules are live as written.",
    "summary": "One is kept at its last good version, one can never match. Rules 42, read 14:03:12 from 9 files in"
    " rules/, live on 4 of 4 workers.",
    "source_name": "rules/",
    "total": 214,
    "live": 212,
    "found": 214,
    "filter": {"q": "", "state": None, "release": None, "limit": 10, "after": 0},
    "next": 10,
    "releases": ["checkout-2026-11", "search-ranker-v7"],
    "asked": [],
    "problems": [
        {
            "severity": "error",
            "file": "rules/invoices.yaml",
            "line": 14,
            "mapping": "invoices-gray",
            "code": "weight-range",
            "message": "weight 120 is above 100",
            "hint": "weights are 0 to 100; with invoices (no weight) the group adds up to 120",
            "label": "Not live: last good kept",
            "meanwhile": "The version of 12:31 (weight 10) goes on answering. All other rules of this file are live.",
            "excerpt": lines(
                11,
                "name: invoices-gray",
                "prefix: /invoices/",
                "service: invoices-v2",
                "weight: 120",
                "timeout_ms: 10000",
                marked=14,
            ),
        },
        {
            "severity": "warning",
            "file": "rules/search.yaml",
            "line": 31,
            "mapping": "search-old",
            "code": "never-reached",
            "message": "it can never match",
            "hint": "every request to /search/ is taken by search-v6 and search-v7 (search.yaml:1, 12)",
            "label": "Live, but shadowed",
            "meanwhile": "Rule 4 has the same prefix and fewer conditions, and comes first by its precedence 10.",
            "excerpt": lines(
                29, "name: search-old", "kind: Mapping", "prefix: /search/", 'headers: {x-old: "1"}', marked=31
            ),
        },
    ],
    "rules": [
        rule(1, "shop.example /checkout/", [member("shop-beta", 100, (_C, 21), gray=True)], 88, "x-beta: 1", hit=2),
        rule(2, "shop.example /checkout/", [member("shop-stable", 100, (_C, 33))], 1_204, "POST"),
        rule(
            3,
            "shop.example /checkout/",
            [member("shop-stable", 80, (_C, 1)), member("shop-gray", 20, (_C, 9), gray=True)],
            62_350,
        ),
        rule(
            4,
            "* /search/",
            [member("search-v6", 95, (_S, 1)), member("search-v7", 5, (_S, 12), gray=True)],
            41_020,
            precedence=10,
        ),
        rule(5, "* /search/", [member("search-v5", 100, (_S, 31))], 0, "x-old: 1", state="never_reached", hit=None),
        rule(
            6,
            "* /invoices/",
            [member("invoices", 90, (_I, 4)), member("invoices-v2", 10, (_I, 14), gray=True)],
            271,
            state="last_good",
            hit=9,
        ),
        rule(
            7,
            "api.example /profile/",
            [member("profile-a", 50, (_P, 1)), member("profile-b", 50, (_P, 11), gray=True)],
            26_430,
            "method GET|HEAD",
        ),
        rule(
            8,
            "shop.example ^/recs/[0-9]+$",
            [member("recs", 100, ("recs.yaml", 1)), member("recs-next", 10, ("recs.yaml", 7), gray=True, copy=True)],
            63_600,
        ),
        rule(
            9,
            "id.example /login/",
            [member("login", 100, (_L, 1)), member("login-next", 0, (_L, 10), gray=True)],
            9_420,
        ),
        rule(10, "* /", [member("local", 100, ("default.yaml", 1))], 2_012),
    ],
}

_STEPS: list[tuple[bool, str, str, Place | None, str | None]] = [
    (True, "3 groups have this host and prefix", "of 214, by the index shop.example → /checkout/", None, None),
    (False, "checkout-beta does not match", "it wants header x-beta: 1; there is none", None, None),
    (False, "checkout-post does not match", "it wants method POST; this is GET", None, None),
    (
        True,
        "checkout takes the request",
        "prefix /checkout/, host shop.example",
        {"file": "rules/checkout.yaml", "line": 9},
        "checkout-2026-11",
    ),
    (False, "Choice: ignored", "x-gray: always counts only from trusted peers, and 203.0.113.7 is none", None, None),
    (True, "Sticky key: header x-user-id = 42 → 12.4", "gray has 0 – 20", None, None),
]
EXPLAIN: ExplainAnswer = {
    **FRAME,
    "rules": IN_FORCE,
    "request": {
        "method": "GET",
        "url": "https://shop.example/checkout/pay?step=2",
        "client": "203.0.113.7",
        "headers": "x-user-id: 42\naccept-language: de\nx-gray: always",
        "cookies": "",
        "user": "",
        "session": "",
    },
    "candidates": [],
    "considered": [],
    "release": {
        "name": "checkout-2026-11",
        "variant": "gray",
        "reason": "sticky",
        "key": "header:x-user-id",
        "slot": 124_000,
        "cookie": None,
        "ranges": {"gray": [[0, 200_000]]},
        "shares": {"stable": 80, "gray": 20},
    },
    "sentence": "shop-gray answers, because user 42 lies at 12.4 in the range 0 – 20.",
    "details": "Every replica says the same for this user until the weight falls below 12.4 %.",
    "variant": "gray",
    "gray": True,
    "steps": [
        {
            "applies": applies,
            "reached": True,
            "title": title,
            "text": text,
            "source": place,
            "release": name,
        }
        for applies, title, text, place, name in _STEPS
    ],
    "position": {"slot": 124_000, "percent": 12.4, "text": "User 42 lies at 12.4; gray has 0 – 20"},
    "asks": [],
    "sent": {
        "to": "GET http://shop-gray.shop:8080/pay?step=2",
        "path": "/checkout/",
        "rewritten": "/",
        "added": [
            ["x-canary-lane", "checkout-2026-11=gray"],
            ["x-forwarded-for", "203.0.113.7"],
            ["x-forwarded-proto", "https"],
        ],
        "changed": [],
        "removed": ["x-gray"],
        "timeout": "3 s, then stable answers (safety net, 20 % of all requests)",
        "copy": None,
    },
    "others": [
        {
            "service": "shop-stable",
            "mapping": "checkout",
            "variant": "stable",
            "gray": False,
            "percent": 80.0,
            "status": None,
            "when": "key above 20",
        },
        {
            "service": "shop-gray",
            "mapping": "checkout-gray",
            "variant": "gray",
            "gray": True,
            "percent": 20.0,
            "status": None,
            "when": "key in 0 – 20",
        },
    ],
}


def seen(
    second: float, number: str, request: str, service: str | None, because: str, detail: str, status: int, took: float
) -> RecentRequest:
    method, target = request.split(" ", 1)
    gray = service is not None and service.endswith(("-gray", "-b", "-v7"))
    return {
        "at": at(0, second),
        "request_id": number,
        "method": method,
        "host": "shop.example",
        "target": target,
        "service": service,
        "mapping": None,
        "release": None,
        "variant": "gray" if gray else "stable",
        "gray": gray,
        "fallback": None,
        "reason": because.lower(),
        "because": because,
        "detail": detail,
        "status": status,
        "took_ms": took,
        "outcome": "failed" if status >= 500 else "answered",
        "explain": f"url={target.partition('?')[0]}",
    }


TRAFFIC: TrafficAnswer = {
    **FRAME,
    "rules": IN_FORCE,
    "sample": "A sample: at most 20 a second and worker, but every failure and every fallback up to 50 a second. Header"
    " values are shown only where a rule looks at them.",
    "filter": {"q": "", "release": None, "variant": None, "outcome": None},
    "releases": ["checkout-2026-11", "search-ranker-v7"],
    "requests": [
        {
            **seen(
                1.588,
                "7f3a-19c2",
                "GET /checkout/pay?step=2",
                "shop-gray",
                "Sticky key",
                "x-user-id = 42 → 12.4",
                200,
                41,
            ),
            "outcome": "fallback",
            "fallback": {"service": "shop-stable", "status": 200, "result": "answered"},
        },
        seen(1.623, "7f3a-19c1", "GET /checkout/cart", "shop-stable", "Sticky key", "cookie uid → 63.0", 200, 28),
        seen(
            1.699, "51d0-88e0", "POST /checkout/pay", "shop-gray", "Choice", "x-gray: always, trusted peer", 504, 3_000
        ),
        seen(1.74, "a0c4-0012", "GET /search/?q=lamp", "search-v6", "Weight", "draw 71.8", 200, 122),
        seen(1.786, "9b72-5513", "GET /profile/me", "profile-b", "Weight", "draw 31.0", 200, 44),
        seen(1.81, "c1f9-7e21", "GET /recs/118", "recs", "Only rule", "copy sent to recs-next", 200, 17),
        seen(
            1.898,
            "0d11-41aa",
            "GET /invoices/\u202efdp.2026",
            "invoices",
            "Sticky key",
            "cookie uid → 88.1",
            200,
            1_700,
        ),
        seen(1.98, "77aa-9c03", "GET /wp-login.php", None, "No rule", "", 404, 2),
    ],
}


def address(port: int, requests: int, errors: int, p95: float) -> Endpoint:
    return {
        "address": f"10.4.1.{port}:8080",
        "state": "healthy",
        "why": "",
        "back_in_seconds": None,
        "requests": requests,
        "errors": errors,
        "p95_ms": p95,
        "connections": 6,
        "waiting": 0,
    }


ENDPOINTS: EndpointsAnswer = {
    **FRAME,
    "rules": IN_FORCE,
    "finding": "1 of 6 addresses gets no requests.",
    "services": [
        {"service": "shop-stable", "endpoints": [address(11, 24_935, 102, 118), address(12, 24_935, 102, 119)]},
        {
            "service": "shop-gray",
            "endpoints": [
                address(21, 12_480, 92, 125),
                {
                    **address(22, 0, 300, 0),
                    "state": "ejected",
                    "why": "5 answers in a row were 5xx",
                    "back_in_seconds": 21.0,
                    "p95_ms": None,
                },
            ],
        },
        {"service": "search-v7", "endpoints": [address(31, 1_045, 3, 260), address(32, 1_045, 4, 160)]},
    ],
}

RELOADS: ReloadsAnswer = {
    **FRAME,
    "rules": IN_FORCE,
    "finding": "Rules 42 are live everywhere.",
    "summary": "On 4 of 4 workers since 14:03:12; from the change of the file to the last worker 84 ms. Looking at"
    " rules/ again by itself when something moves, and every 30 s.",
    "reloads": [
        {
            "generation": 42,
            "read_at": at(3, 47.582),
            "live_at": at(3, 47.498),
            "live_on": 4,
            "workers": 4,
            "rules": 214,
            "added": 0,
            "changed": 1,
            "removed": 0,
            "title": "Rules 42",
            "text": "1 of 214 rules changed.",
            "lines": [],
            "diff": [
                {
                    "file": "rules/checkout.yaml",
                    "lines": [
                        {"sign": " ", "line": 15, "text": "# one step an hour, then 50"},
                        {"sign": "-", "line": 16, "text": "gray: 10"},
                        {"sign": "+", "line": 16, "text": "gray: 20"},
                    ],
                }
            ],
            "error": None,
            "effect": "Of all requests 0.62 % failed in the 5 minutes before, and 0.71 % in the 4 minutes since."
            " checkout-2026-11: gray got 10.0 % before, and 20.1 % after it.",
        },
        {
            "generation": 41,
            "read_at": at(82, 50.88),
            "live_at": at(82, 50.8),
            "live_on": 4,
            "workers": 4,
            "rules": 214,
            "added": 0,
            "changed": 1,
            "removed": 0,
            "title": "Rules 41 stay: a change was refused in part",
            "text": "213 rules of that state went live, invoices-gray stayed at its version of 12:31.",
            "lines": [],
            "diff": [
                {
                    "file": "rules/invoices.yaml",
                    "lines": [
                        {"sign": "-", "line": 14, "text": "weight: 10"},
                        {"sign": "+", "line": 14, "text": "weight: 120"},
                    ],
                }
            ],
            "error": "rules/invoices.yaml:14: weight 120 is above 100",
            "effect": None,
        },
        {
            "generation": 40,
            "read_at": at(95, 15.994),
            "live_at": at(95, 15.929),
            "live_on": 4,
            "workers": 4,
            "rules": 214,
            "added": 2,
            "changed": 0,
            "removed": 0,
            "title": "Rules 40",
            "text": "2 rules added, none removed. By a swap of the ConfigMap volume.",
            "lines": [],
            "diff": [],
            "error": None,
            "effect": None,
        },
    ],
}

ABOUT: AboutAnswer = {
    **FRAME,
    "rules": IN_FORCE,
    "pod": "gateway-7c9f-x2k4q",
    "python": "3.11.7",
    "libraries": {"uvicorn": "0.54.0", "starlette": "1.10.0", "httptools": "0.9.0"},
    "started": at(187),
    "workers": [
        {"pid": 3_808 + number, "started": at(187), "generation": 42, "heard": 0.4, "state": "live"}
        for number in range(4)
    ],
    "ended": [{"pid": 3_790, "started": at(300), "ended": at(187), "how": "killed by signal 9"}],
    "figures": {"folder": "/dev/shm/canary-mw-0-4026531836-3801", "bytes": 4 << 20},
    "settings": [
        {"name": "rules", "value": "rules/", "origin": "option", "variable": "CANARY_MW_RULES"},
        {"name": "workers", "value": "4", "origin": "environment", "variable": "CANARY_MW_WORKERS"},
        {"name": "header_key_file", "value": "set", "origin": "environment", "variable": "CANARY_MW_HEADER_KEY_FILE"},
        {"name": "port", "value": "8080", "origin": "default", "variable": "CANARY_MW_PORT"},
    ],
    "links": [
        {"title": "The API", "path": "/api/v1/openapi.json"},
        {"title": "Metrics", "path": "/metrics"},
        {"title": "Readiness", "path": "/readyz?verbose"},
    ],
}
