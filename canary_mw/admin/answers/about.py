"""The answer about the process, its workers and its settings."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from canary_mw.admin.answers.frame import answer_frame, is_silent, iso, newest_content, workers_of
from canary_mw.admin.models.operations import AboutAnswer, EndedWorker, Link, Worker
from canary_mw.admin.subject import Subject
from canary_mw.observability.figures.values import Figures

_LIBRARIES = ("starlette", "uvicorn", "httptools", "httpx", "pydantic", "google-re2", "prometheus-client")
_LINKS: list[Link] = [
    {"title": "OpenAPI", "path": "/api/v1/openapi.json"},
    {"title": "Metrics", "path": "/metrics"},
    {"title": "Readiness", "path": "/readyz?verbose"},
]
_ENDS = {"stopped": "it stopped", "killed": "without a word: it was killed, or it crashed"}


def about_answer(subject: Subject, figures: Figures) -> AboutAnswer:
    """What is known of the process itself."""
    folder = subject.folder()
    return {
        **answer_frame(subject, figures),
        "pod": subject.pod,
        "python": platform.python_version(),
        "libraries": dict(_versions()),
        "started": iso(subject.started),
        "workers": [*_workers(subject, figures)],
        "ended": [*_ended(figures)],
        "figures": {"folder": folder, "bytes": _size(folder)},
        "settings": list(subject.settings),
        "links": _LINKS,
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name in _LIBRARIES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def _workers(subject: Subject, figures: Figures) -> Iterator[Worker]:
    workers, now = workers_of(subject, figures), subject.clock()
    newest = newest_content(workers)
    for each in workers:
        yield {
            "pid": each.pid,
            "started": iso(each.start),
            "generation": each.generation,
            "heard": round(max(now - each.heartbeat, 0.0), 1),
            "state": "silent" if is_silent(each, now) else "live" if each.content == newest else "behind",
        }


def _ended(figures: Figures) -> Iterator[EndedWorker]:
    for each in figures.ended:
        how = _ENDS.get(each.end, each.end)
        yield {"pid": each.pid, "started": iso(each.start), "ended": iso(each.heartbeat), "how": how}


def _size(folder: str | None) -> int:
    """Bytes of the files in a folder; files may go while they are counted."""
    if folder is None:
        return 0
    try:
        return sum(each.stat().st_size for each in Path(folder).iterdir() if each.is_file())
    except OSError:
        return 0
