"""Examples of the two answers of the admin port about releases."""

from canary_mw.admin.models.common import Frame, InForce
from canary_mw.admin.models.figures import Difference, Interval, Measured, Series, SeriesOfVariant, VariantFigures
from canary_mw.admin.models.release import ReleaseAnswer
from canary_mw.admin.models.releases import Overview, Release, Verdict
from canary_mw.rollout.sentence import State

# The labels of the states, the most urgent first.
LABELS: dict[State, str] = {
    "worse": "Gray is worse",
    "slower": "Gray is slower",
    "split_off": "Split is off",
    "not_enough": "Not enough yet",
    "same": "No difference seen",
    "better": "Gray is better",
    "off": "Off",
}


def frame() -> Frame:
    return {
        "now": "2026-11-27T14:06:59.000Z",
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


IN_FORCE: InForce = {
    "generation": 42,
    "since": "2026-11-27T14:03:12.418Z",
    "workers_on_it": 4,
    "problems": 2,
    "error": None,
}


def measured(value: float | None, low: float | None, high: float | None) -> Measured:
    return {"value": value, "low": low, "high": high}


def interval(low: float | None, high: float | None) -> Interval:
    return {"low": low, "high": high}


def variant(service: str, requests: int, errors: int, rate: tuple[float, float, float]) -> VariantFigures:
    return {
        "services": [service],
        "requests": requests,
        "rps": round(requests / 300, 1),
        "errors": errors,
        "error_rate": measured(*rate),
        "p50_ms": measured(31.0, 30.4, 31.7),
        "p95_ms": measured(118.0, 114.0, 122.0),
        "p99_ms": measured(290.0, 271.0, 312.0),
        "status": {"2xx": requests - errors, "5xx": errors},
    }


def series_of(requests: int, errors: int) -> SeriesOfVariant:
    rate = errors / requests
    return {
        "requests": [requests] * 60,
        "errors": [errors] * 60,
        "error_rate": [rate] * 59 + [None],
        "error_low": [rate / 2] * 59 + [None],
        "error_high": [rate * 2] * 59 + [None],
        "p95_ms": [118.0] * 59 + [None],
        "p95_low": [112.0] * 59 + [None],
        "p95_high": [124.0] * 59 + [None],
    }


SERIES: Series = {
    "start": "2026-11-27T13:07:00.000Z",
    "step_seconds": 60,
    "stable": series_of(9_970, 40),
    "shop-gray": series_of(2_500, 78),
}

DIFFERENCE: Difference = {
    "error_rate": interval(0.024, 0.031),
    "p50_ms": interval(-0.6, 2.4),
    "p95_ms": interval(-2.0, 19.0),
    "p99_ms": interval(-20.0, 61.0),
}


def verdict(state: State, headline: str, details: str = "", *, variant: str | None = "shop-gray") -> Verdict:
    needs_you = state in ("worse", "slower", "split_off")
    return {
        "variant": variant,
        "state": state,
        "label": LABELS[state],
        "sentence": f"{headline} {details}".strip(),
        "headline": headline,
        "details": details,
        "since": "2026-11-27T13:41:30.000Z",
        "ln_e": 9.2 if state == "worse" else None,
        "what_to_do": "take gray back: write `gray: {shop-gray: 0}`" if needs_you else "",
        "command": None,
        "source": {"file": "rules/checkout.yaml", "line": 16} if needs_you else None,
    }


def release(name: str, verdict: Verdict, *, prefix: str = "/checkout/", host: str | None = "shop.example") -> Release:
    needs_you = verdict["state"] in ("worse", "slower", "split_off")
    return {
        "name": name,
        "document": True,
        "match": {"host": host, "prefix": prefix},
        "services": ["shop-stable", "shop-gray"],
        "weights": {"stable": 80.0, "shop-gray": 20.0},
        "seen": {"stable": 80.0, "shop-gray": 20.0},
        "seen_percent": 20.0,
        "requests": 62_350,
        "needs_you": needs_you,
        "rollout": None,
        "last_gray": "2026-11-27T14:06:58.412Z",
        "verdict": verdict,
        "variants": {
            "stable": variant("shop-stable", 49_870, 204, (0.0041, 0.0036, 0.0047)),
            "shop-gray": variant("shop-gray", 12_480, 392, (0.0314, 0.0285, 0.0346)),
        },
        "difference": DIFFERENCE,
        "verdicts": {"shop-gray": verdict},
        "differences": {"shop-gray": DIFFERENCE},
        "series": SERIES if needs_you else None,
        "events": [{"at": "2026-11-27T13:41:07.000Z", "kind": "weight", "text": "weight 10 → 20"}],
    }


WORSE = release(
    "checkout-2026-11",
    verdict(
        "worse",
        "Gray fails more often: 3.1 % of its requests against 0.4 %.",
        "Very unlikely to be chance. Stable stepped in for 291 of the 392 failures, so clients saw 101.",
    ),
)
SLOWER = release(
    '<script>alert(1)</script>" onload=x \u202egnp.elif',
    verdict("slower", "Gray is slower: 95 of 100 answers take up to 212 ms, against 148 ms."),
    prefix="/search/" + "deep/" * 40,
    host=None,
)
SAME = release(
    "profile-api",
    verdict("same", "No difference seen.", "In errors it lies between −0.1 and +0.2 points."),
    prefix="/profile/",
)
NOT_ENOUGH = release(
    "invoices-pdf",
    verdict("not_enough", "Not enough yet: 41 gray requests.", "At this rate about 9 minutes more."),
    prefix="/invoices/",
)
OFF: Release = {
    **release("login-cookie", verdict("off", "Off: gray's weight is 0.", "No gray request since 11:20.")),
    "weights": {"stable": 100.0, "shop-gray": 0.0},
    "seen": {"stable": 100.0, "shop-gray": 0.0},
    "seen_percent": 0.0,
    "variants": {"stable": variant("login", 9_420, 12, (0.0013, 0.0007, 0.0022))},
    "difference": None,
    "differences": {"shop-gray": None},
    "last_gray": "2026-11-27T11:20:00.000Z",
}

OVERVIEW: Overview = {
    **frame(),
    "rules": IN_FORCE,
    "window": {"name": "5m", "seconds": 300.0},
    "finding": "checkout-2026-11 needs you: gray is failing.",
    "summary": "2 of 5 releases need a look, 3 do not. Compared over the last 5 minutes, stable beside gray in the same"
    " time.",
    "totals": {
        "requests": 119_400,
        "rps": 398.0,
        "gray_share": 0.142,
        "errors": 848,
        "error_rate": 0.0071,
        "p95_ms": 131.0,
    },
    "releases": [WORSE, SLOWER, NOT_ENOUGH, SAME, OFF],
}

RELEASE: ReleaseAnswer = {
    **frame(),
    **WORSE,
    "in_force": IN_FORCE,
    "evidence": [],
    "window": {"name": "5m", "seconds": 300.0},
    "quarters": [
        {"start": f"2026-11-27T{start}:00.000Z", "variants": WORSE["variants"]}
        for start in ("13:15", "13:30", "13:45", "14:00")
    ],
    "reasons": [
        {
            "reason": "sticky",
            "title": "Sticky key",
            "detail": "header x-user-id, cookie uid",
            "requests": {"stable": 47_048, "shop-gray": 11_690},
        },
        {
            "reason": "choice:header",
            "title": "Choice",
            "detail": "header x-gray",
            "requests": {"stable": 12, "shop-gray": 88},
        },
    ],
    "failures": [
        {"variant": "shop-gray", "kind": "503", "text": "503 sent by shop-gray", "count": 291},
        {"variant": "shop-gray", "kind": "timeout", "text": "no answer in time", "count": 101},
    ],
    "clients_saw": {
        "failures": 392,
        "stepped_in": 291,
        "clients": 101,
        "text": "Clients saw 101 of these 392. Stable answered the other 291.",
    },
    "choice": {
        "steps": [
            {"name": "choice", "title": "Choice", "text": "Header x-gray, from trusted peers only"},
            {"name": "audience", "title": "Audience", "text": "Everybody else stays on stable"},
            {"name": "sticky", "title": "Sticky key", "text": "header x-user-id, else cookie uid"},
            {"name": "fallback", "title": "Safety net", "text": "Stable answers for a gray that fails"},
        ],
        "ring": {
            "salt": "checkout-2026-11",
            "slots": 1_000_000,
            "ranges": {"shop-gray": [[0, 200_000]]},
            "before": [100_000],
        },
    },
    "answers": [
        {"status": "2xx", "note": "", "requests": {"stable": 49_102, "shop-gray": 11_871}},
        {"status": "4xx", "note": "not counted as errors", "requests": {"stable": 176, "shop-gray": 119}},
        {"status": "503", "note": "", "requests": {"stable": 3, "shop-gray": 291}},
    ],
    "rules": [
        {
            "name": "checkout-gray",
            "kind": "Mapping",
            "variant": "shop-gray",
            "file": "rules/checkout.yaml",
            "line": 9,
            "order": 3,
            "excerpt": [
                {"line": 9, "text": "kind: Mapping", "marked": False},
                {"line": 16, "text": "weight: 0", "marked": False},
            ],
        }
    ],
    "changes": [{"at": "2026-11-27T13:41:07.000Z", "generation": 42, "text": "weight 10 → 20"}],
    "live_on": 4,
    "live_since": "2026-11-27T13:41:07.000Z",
}
