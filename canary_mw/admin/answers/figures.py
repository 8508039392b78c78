"""The answer with the raw counts: for programs, and for tests."""

from canary_mw.admin.answers.frame import answer_frame
from canary_mw.admin.models.counts import FiguresAnswer, FiguresRow, ReasonRow
from canary_mw.admin.subject import Subject
from canary_mw.observability.figures.buckets import BOUNDS
from canary_mw.observability.figures.values import CLASSES, FAILURE_KINDS, FALLBACK_RESULTS, Figures, Row, RowKey


def figures_answer(subject: Subject, figures: Figures) -> FiguresAnswer:
    """All rows and reasons since the pod started."""
    reasons: list[ReasonRow] = [
        {"release": key.release, "variant": key.variant, "reason": key.reason, "requests": count}
        for key, count in sorted(figures.reasons.items())
    ]
    return {
        **answer_frame(subject, figures),
        "rows": [_row(key, row) for key, row in sorted(figures.rows.items())],
        "reasons": reasons,
        "gauges": dict(figures.gauges),
        "skipped": list(figures.skipped),
    }


def _row(key: RowKey, row: Row) -> FiguresRow:
    return {
        "release": key.release,
        "mapping": key.mapping,
        "service": key.service,
        "variant": key.variant,
        "drawn": key.drawn,
        "requests": row.requests,
        "classes": _named(CLASSES, row.classes),
        "errors": row.errors,
        "seconds": row.seconds,
        "first_byte_seconds": row.first_byte_seconds,
        "bytes_in": row.bytes_in,
        "bytes_out": row.bytes_out,
        "retries": row.retries,
        "fallbacks": _named(FALLBACK_RESULTS, row.fallbacks),
        "failures": _named(FAILURE_KINDS, row.failures),
        "buckets": _named(tuple(f"{bound:.6g}" for bound in BOUNDS), row.buckets),
    }


def _named(names: tuple[str, ...], counts: tuple[int, ...]) -> dict[str, int]:
    """Counts by name, without zeros."""
    return {name: count for name, count in zip(names, counts, strict=True) if count}
