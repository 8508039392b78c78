"""What to do about a release that needs somebody: the line to change, as it should read, or the command."""

import json
import re
import shlex
from typing import NamedTuple

from canary_mw.admin.models.common import Place
from canary_mw.admin.models.rollout import Phase
from canary_mw.admin.releases.views import ReleaseView
from canary_mw.config.document import APIObject
from canary_mw.control.store import RuleStore
from canary_mw.rollout.sentence import State
from canary_mw.rules.mapping import Mapping

_WEIGHT = re.compile(r"\bweight\s*[\"']?\s*:")
_TEXTS: dict[State, str] = {
    "slower": "nothing breaks, but do not widen it before the time is understood.",
    "split_off": "do not trust the figures before it is understood why the requests are not divided as the rules say.",
}
# What to do about a release that waits for somebody, by what holds it.
_HELD = {
    "": "decide: `canary-mw release promote NAME` takes the next step, `canary-mw release abort NAME` takes gray back.",
    "sample_ratio": "find out why users are not divided as drawn, as by another balancer before this one; then"
    " `canary-mw release resume NAME` goes on, `canary-mw release abort NAME` takes gray back.",
    "plan": "steps up to the present one have changed: `canary-mw release promote NAME` goes on with the new ones,"
    " `canary-mw release abort NAME` and then retry begin again.",
    "timeout": "the step got too little evidence in its time: more traffic, `canary-mw release promote NAME`, or larger"
    " steps.",
    "evidence": "evidence got lost: it goes on by itself when there is enough again, or by"
    " `canary-mw release promote NAME`.",
    "metric": "look at the metric, then decide: `canary-mw release promote NAME` takes the next step,"
    " `canary-mw release abort NAME` takes gray back.",
    "store": "nothing moves before all processes share a store: set CANARY_MW_STATE.",
}


class Advice(NamedTuple):
    """What to do.

    Attributes:
        text: "" where nothing is to be done.
        command: that takes gray back, where a command can.
        source: the line to change.
    """

    text: str = ""
    command: str | None = None
    source: Place | None = None


NOTHING_TO_DO = Advice()


def advice(
    store: RuleStore, view: ReleaseView, variant: str, state: State, phase: Phase = "Manual", held_by: str = ""
) -> Advice:
    """What to do about a gray variant in a state, of a release in a phase."""
    if phase != "Manual":
        return _of_phase(store, view, variant, state, phase, held_by)
    if state == "worse":
        return _take_back(store, view, variant)
    if state in _TEXTS:
        return Advice(_TEXTS[state], None, _source(store, view, variant))
    return NOTHING_TO_DO


def _of_phase(store: RuleStore, view: ReleaseView, variant: str, state: State, phase: Phase, held_by: str) -> Advice:
    """What to do about a release that has steps: its commands need no change of a file."""
    source = _source(store, view, variant)
    if phase == "RolledBack" and view.compiled is not None:
        document = view.compiled.document
        source = {"file": document.file, "line": document.line_of("revision") or document.line or None}
        again = f"`{command(view.name, 'retry')}`"
        text = f"mend gray; then {again}, or another revision in {_place(source)}, begins the next attempt."
        return Advice(text, None, source)
    if phase == "Held":
        return Advice(_HELD.get(held_by, _HELD[""]).replace("NAME", _quoted(view.name)), None, source)
    if state == "worse" and phase != "Aborted":
        abort = command(view.name, "abort")
        return Advice(f"take gray back: run {abort}", abort, source)
    return Advice(_TEXTS[state], None, source) if state in _TEXTS and phase != "Aborted" else NOTHING_TO_DO


def command(release: str, name: str) -> str:
    """A command of the command line about a release."""
    return f"canary-mw release {name} {_quoted(release)}"


def _quoted(release: str) -> str:
    return shlex.quote(release)


def _place(source: Place) -> str:
    return source["file"] if source["line"] is None else f"{source['file']}:{source['line']}"


def _take_back(store: RuleStore, view: ReleaseView, variant: str) -> Advice:
    source, line = _source(store, view, variant), _line(view, variant)
    patch = None if view.compiled else _patch(store, view.targets[variant][0])
    text = f"take gray back: run {patch}" if patch else f"take gray back: {line} in {_place(source)}."
    return Advice(text, patch, source)


def _line(view: ReleaseView, variant: str) -> str:
    """The line as it should read."""
    return "weight: 0" if view.compiled is None else f"gray: {{{variant}: 0}}"


def _source(store: RuleStore, view: ReleaseView, variant: str) -> Place:
    if view.compiled is not None:
        document = view.compiled.document
        return {"file": document.file, "line": document.line_of(f"gray.{variant}") or None}
    mapping = view.targets[variant][0]
    return {"file": mapping.file, "line": _weight_line(store, mapping) or mapping.line or None}


def _weight_line(store: RuleStore, mapping: Mapping) -> int | None:
    """The line of the weight of a Mapping, in its document."""
    file = store.rules.files.get(mapping.file) if store.rules else None
    lines = file.document.text.splitlines() if file and mapping.line else []
    for number, text in enumerate(lines[max(mapping.line - 1, 0) :], mapping.line):
        if text.startswith("---") and number > mapping.line:
            return None
        if _WEIGHT.search(text):
            return number
    return None


def _patch(store: RuleStore, mapping: Mapping) -> str | None:
    """The command for a Mapping that is an object of a Kubernetes API of its own."""
    file = store.rules.files.get(mapping.file) if store.rules else None
    found: APIObject | None = file.document.api_object if file else None
    if found is None or found.annotated or found.kind != "Mapping":
        return None
    patch = json.dumps({"spec": {"weight": 0}})
    return shlex.join(
        ["kubectl", "-n", found.namespace, "patch", "mapping", found.name, "--type", "merge", "-p", patch]
    )
