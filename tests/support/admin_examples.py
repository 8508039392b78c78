"""An example of every answer of the admin port: invented figures, and names that a page must not take for markup."""

from admin_release_examples import OVERVIEW, RELEASE, frame

from canary_mw.admin.models.counts import FiguresAnswer
from canary_mw.admin.models.explain import ExplainAnswer, ExplainForm
from canary_mw.admin.models.operations import AboutAnswer, EndpointsAnswer, ReloadsAnswer, TrafficAnswer
from canary_mw.admin.models.rules import Member, Rule, RulesAnswer

# What ends a title, opens a script, and turns the reading direction.
HOSTILE = '<script>alert(1)</script>" onload=x \u202egnp.elif'


def member(service: str, percent: float, line: int, *, gray: bool = False, copy: bool = False) -> Member:
    return {
        "mapping": service,
        "namespace": None,
        "service": service,
        "variant": "gray" if gray else "stable",
        "gray": gray,
        "local": False,
        "copy": copy,
        "percent": percent,
        "file": "rules/checkout.yaml",
        "line": line,
    }


def rule(order: int, prefix: str, *members: Member, conditions: tuple[str, ...] = ()) -> Rule:
    return {
        "order": order,
        "name": " + ".join(each["mapping"] for each in members),
        "host": "shop.example",
        "prefix": prefix,
        "kind": "prefix",
        "conditions": list(conditions),
        "precedence": 0,
        "members": list(members),
        "state": "live",
        "label": "Live",
        "why": "",
        "release": None,
        "source": [{"file": each["file"], "line": each["line"]} for each in members],
        "requests": 1204,
        "ever": 90_210,
        "last_hit": "2026-11-27T14:06:58.412Z",
    }


RULES: RulesAnswer = {
    **frame(),
    "in_force": {
        "generation": 42,
        "since": "2026-11-27T14:03:12.418Z",
        "workers_on_it": 4,
        "problems": 2,
        "error": "rules/invoices.yaml:14: weight 120 is above 100",
    },
    "finding": "3 of 5 rules are live as written.",
    "summary": "1 is kept at its last good version, 1 can never match. Read from rules/.",
    "source_name": "rules/",
    "total": 5,
    "live": 3,
    "found": 5,
    "filter": {"q": "", "state": None, "release": None, "limit": 100, "after": 0},
    "next": None,
    "releases": ["checkout-2026-11"],
    "asked": [
        {
            "kind": "AuthService",
            "name": "auth",
            "services": ["auth.shop:3000"],
            "state": "asked",
            "label": "Asked",
            "asked": 12_400,
            "denied": 31,
            "failed": 2,
            "mean_ms": 3.1,
        }
    ],
    "problems": [
        {
            "severity": "error",
            "file": "rules/invoices.yaml",
            "line": 14,
            "mapping": "invoices-gray",
            "code": "weight-range",
            "message": "weight 120 is above 100",
            "hint": "write 0 to 100",
            "label": "Not live: last good kept",
            "meanwhile": "The last good version goes on answering. All other rules of this file are live.",
            "excerpt": [
                {"line": 13, "text": "service: invoices-v2", "marked": False},
                {"line": 14, "text": "weight: 120", "marked": True},
                {"line": 15, "text": "timeout_ms: 10000", "marked": False},
            ],
        },
        {
            "severity": "warning",
            "file": f"rules/{HOSTILE}.yaml",
            "line": None,
            "mapping": HOSTILE,
            "code": "unreachable-mapping",
            "message": f"{HOSTILE} can never match",
            "hint": None,
            "label": "Live, but shadowed",
            "meanwhile": "Rule 4 takes every request that it could take.",
            "excerpt": [],
        },
    ],
    "rules": [
        rule(1, "/checkout/", member("shop-beta", 100.0, 21, gray=True), conditions=("x-beta: 1",)),
        {
            **rule(2, "/checkout/", member("shop-stable", 80.0, 1), member("shop-gray", 20.0, 9, gray=True)),
            "release": "checkout-2026-11",
        },
        {
            **rule(3, "/invoices/", member("invoices", 90.0, 4), member("invoices-v2", 10.0, 14, gray=True)),
            "state": "last_good",
            "label": "Last good kept",
            "why": "weight 120 is above 100",
        },
        {
            **rule(4, f"/{HOSTILE}/", member(HOSTILE, 100.0, 1), member("copies", 10.0, 2, copy=True)),
            "host": None,
            "requests": None,
            "ever": None,
            "last_hit": None,
        },
        {
            **rule(5, f"/{HOSTILE}/", member("old", 100.0, 31)),
            "state": "never_reached",
            "label": "Never reached",
            "why": "rule 4 takes every request that it could take",
            "requests": 0,
            "ever": 0,
            "last_hit": None,
        },
    ],
}

EXPLAIN: ExplainAnswer = {
    **frame(),
    "rules": OVERVIEW["rules"],
    "request": {
        "method": "GET",
        "url": "https://shop.example/checkout/pay?step=2",
        "client": "203.0.113.7",
        "headers": f"x-user-id: 42\nx-note: {HOSTILE}",
        "cookies": "",
        "user": "",
        "session": "",
    },
    "candidates": [],
    "considered": [
        {"group": "shop.example /checkout/", "matched": True, "why": "prefix /checkout/, host shop.example"}
    ],
    "release": {
        "name": "checkout-2026-11",
        "variant": "shop-gray",
        "reason": "sticky",
        "key": "header:x-user-id",
        "slot": 124_000,
        "cookie": None,
        "ranges": {"shop-gray": [[0, 200_000]]},
        "shares": {"shop-gray": 20.0, "stable": 80.0},
    },
    "sentence": "shop-gray answers, because the key of header:x-user-id lies at 12.4, in 0 – 20 of shop-gray.",
    "details": "Every replica says the same for this key until the weight falls below 12.4 %.",
    "variant": "shop-gray",
    "gray": True,
    "steps": [
        {
            "applies": False,
            "reached": True,
            "title": "shop.example /checkout/ x-beta: 1 does not match",
            "text": "there is no header x-beta",
            "source": {"file": "rules/checkout.yaml", "line": 21},
            "release": None,
        },
        {
            "applies": True,
            "reached": True,
            "title": "Sticky key",
            "text": "header:x-user-id has slot 124000",
            "source": None,
            "release": "checkout-2026-11",
        },
    ],
    "position": {
        "slot": 124_000,
        "percent": 12.4,
        "text": "The key of header:x-user-id lies at 12.4; shop-gray has 0 – 20",
    },
    "asks": ["asks AuthService auth (auth.shop:3000)"],
    "sent": {
        "to": "GET http://shop-gray.shop:8080/pay?step=2",
        "path": "/checkout/pay?step=2",
        "rewritten": "/pay?step=2",
        "added": [["x-canary-lane", "checkout-2026-11=shop-gray"], ["x-note", HOSTILE]],
        "changed": [],
        "removed": ["x-gray"],
        "timeout": "3 s, then stable answers",
        "copy": None,
    },
    "others": [
        {
            "service": "shop-stable",
            "mapping": "shop-stable",
            "variant": "stable",
            "gray": False,
            "percent": 80.0,
            "status": None,
            "when": "key in 20 – 100",
        },
        {
            "service": "shop-gray",
            "mapping": "shop-gray",
            "variant": "shop-gray",
            "gray": True,
            "percent": 20.0,
            "status": None,
            "when": "key in 0 – 20",
        },
    ],
}

EXPLAIN_FORM: ExplainForm = {
    **frame(),
    "rules": OVERVIEW["rules"],
    "request": {"method": "GET", "url": "", "client": "", "headers": "", "cookies": "", "user": "{", "session": ""},
    "error": 'user is no JSON: write an object, as {"id": 42}',
}

TRAFFIC: TrafficAnswer = {
    **frame(),
    "rules": OVERVIEW["rules"],
    "sample": "A sample: at most 20 a second and worker, but every failure and every fallback up to 50 a second.",
    "filter": {"q": "", "release": None, "variant": None, "outcome": None},
    "releases": ["checkout-2026-11"],
    "requests": [
        {
            "at": "2026-11-27T14:06:58.412Z",
            "request_id": "7f3a-19c2",
            "method": "GET",
            "host": "shop.example",
            "target": "/checkout/pay?step=",
            "service": "shop-gray",
            "mapping": "checkout-gray",
            "release": "checkout-2026-11",
            "variant": "shop-gray",
            "gray": True,
            "fallback": {"service": "shop-stable", "status": 200, "result": "answered"},
            "reason": "sticky",
            "because": "Sticky key",
            "detail": "header:x-user-id → 12.4",
            "status": 200,
            "took_ms": 41.0,
            "outcome": "fallback",
            "explain": "method=GET&url=https%3A%2F%2Fshop.example%2Fcheckout%2Fpay%3Fstep%3D",
        },
        {
            "at": "2026-11-27T14:06:58.020Z",
            "request_id": HOSTILE,
            "method": "GET",
            "host": None,
            "target": f"/invoices/{HOSTILE}",
            "service": None,
            "mapping": None,
            "release": None,
            "variant": None,
            "gray": False,
            "fallback": None,
            "reason": "none",
            "because": "No rule",
            "detail": "",
            "status": 404,
            "took_ms": 2.0,
            "outcome": "answered",
            "explain": "method=GET&url=%2Finvoices%2F",
        },
    ],
}

ENDPOINTS: EndpointsAnswer = {
    **frame(),
    "rules": OVERVIEW["rules"],
    "finding": "1 of 3 addresses gets no requests.",
    "services": [
        {
            "service": "shop-gray.shop:8080",
            "endpoints": [
                {
                    "address": "10.0.0.7:8080",
                    "state": "ejected",
                    "why": "5 failures in a row",
                    "back_in_seconds": 12.0,
                    "requests": 12,
                    "errors": 5,
                    "p95_ms": 212.0,
                    "connections": 0,
                    "waiting": 0,
                },
                {
                    "address": "10.0.0.8:8080",
                    "state": "healthy",
                    "why": "",
                    "back_in_seconds": None,
                    "requests": None,
                    "errors": None,
                    "p95_ms": None,
                    "connections": 4,
                    "waiting": 0,
                },
            ],
        },
        {
            "service": HOSTILE,
            "endpoints": [
                {
                    "address": HOSTILE,
                    "state": "unresolved",
                    "why": f"{HOSTILE}: name or service not known",
                    "back_in_seconds": None,
                    "requests": None,
                    "errors": None,
                    "p95_ms": None,
                    "connections": None,
                    "waiting": None,
                }
            ],
        },
    ],
}

RELOADS: ReloadsAnswer = {
    **frame(),
    "rules": OVERVIEW["rules"],
    "finding": "Rules 42 are live everywhere.",
    "summary": "On 4 of 4 workers since 14:03:12; from the first worker to the last 84 ms.",
    "reloads": [
        {
            "generation": 42,
            "read_at": "2026-11-27T14:03:12.418Z",
            "live_at": "2026-11-27T14:03:12.502Z",
            "live_on": 4,
            "workers": 4,
            "rules": 214,
            "added": 0,
            "changed": 1,
            "removed": 0,
            "title": "Rules 42",
            "text": "1 rule changed; 214 in all.",
            "lines": ["GrayRelease checkout-2026-11: shop-gray 10 % to 20 %"],
            "diff": [
                {
                    "file": "rules/checkout.yaml",
                    "lines": [
                        {"sign": " ", "line": 15, "text": "# one step an hour, then 50"},
                        {"sign": "-", "line": 16, "text": "weight: 10"},
                        {"sign": "+", "line": 16, "text": "weight: 20"},
                    ],
                }
            ],
            "error": None,
            "effect": None,
        },
        {
            "generation": 41,
            "read_at": "2026-11-27T12:44:09.120Z",
            "live_at": None,
            "live_on": 3,
            "workers": 4,
            "rules": 214,
            "added": 0,
            "changed": 0,
            "removed": 0,
            "title": "Rules 41 stay: a change was refused in part",
            "text": f"rules/invoices.yaml:14: {HOSTILE}",
            "lines": [],
            "diff": [],
            "error": f"rules/invoices.yaml:14: {HOSTILE}",
            "effect": None,
        },
    ],
}

ABOUT: AboutAnswer = {
    **frame(),
    "rules": OVERVIEW["rules"],
    "pod": "gateway-7c9f-x2k4q",
    "python": "3.11.2",
    "libraries": {"uvicorn": "0.53.0"},
    "started": "2026-11-27T12:00:00.000Z",
    "workers": [
        {"pid": 7, "started": "2026-11-27T12:00:00.000Z", "generation": 42, "heard": 0.4, "state": "live"},
        {"pid": 8, "started": "2026-11-27T12:00:00.000Z", "generation": 41, "heard": 0.4, "state": "behind"},
    ],
    "ended": [
        {
            "pid": 6,
            "started": "2026-11-27T12:00:00.000Z",
            "ended": "2026-11-27T13:00:00.000Z",
            "how": "without a word: it was killed, or it crashed",
        }
    ],
    "figures": {"folder": "/run/canary-mw", "bytes": 1_048_576},
    "settings": [
        {"name": "rules", "value": "rules/", "origin": "option", "variable": "CANARY_MW_RULES"},
        {"name": "header_key_file", "value": "set", "origin": "environment", "variable": "CANARY_MW_HEADER_KEY_FILE"},
    ],
    "links": [{"title": "OpenAPI", "path": "/api/v1/openapi.json"}, {"title": "Metrics", "path": "/metrics"}],
}

FIGURES: FiguresAnswer = {
    **frame(),
    "rules": OVERVIEW["rules"],
    "rows": [
        {
            "release": "checkout-2026-11",
            "mapping": HOSTILE,
            "service": "shop-gray",
            "variant": "shop-gray",
            "drawn": True,
            "requests": 12_480,
            "classes": {"2xx": 12_088, "5xx": 392},
            "errors": 392,
            "seconds": 1_241.5,
            "first_byte_seconds": 1_100.5,
            "bytes_in": 0,
            "bytes_out": 1_048_576,
            "retries": 0,
            "fallbacks": {"ok": 291},
            "failures": {"503": 291, "timeout": 101},
            "buckets": {"0.032": 12_000, "0.064": 480},
        }
    ],
    "reasons": [{"release": "checkout-2026-11", "variant": "shop-gray", "reason": "sticky", "requests": 11_690}],
    "gauges": {"in_flight": 3},
    "skipped": [],
}

EXAMPLES = {
    "overview": OVERVIEW,
    "release": RELEASE,
    "rules": RULES,
    "explain": EXPLAIN,
    "explain form": EXPLAIN_FORM,
    "traffic": TRAFFIC,
    "endpoints": ENDPOINTS,
    "reloads": RELOADS,
    "about": ABOUT,
    "figures": FIGURES,
}
