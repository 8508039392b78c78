"""Looks at the evidence of releases with steps, also while nobody has a page open."""

from weakref import ref

from canary_mw.admin.subject import Subject

# Seconds between two looks, and where nobody shows them any more.
_PAUSE, _NEVER = 5.0, 3600.0


def look(reference: "ref[Subject]") -> float:
    """Look once; returns the seconds until the next look."""
    subject = reference()
    if subject is None:
        return _NEVER
    for name, compiled in subject.store.table.releases.items():
        rollout = subject.rollout(name) if compiled.document.plan is not None else None
        if rollout is not None:
            subject.trails.look(name, rollout, subject.clock())
    return _PAUSE
