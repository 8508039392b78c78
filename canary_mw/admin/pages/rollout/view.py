"""All that is drawn of how far a release is: its steps as a bar, what it waits for, and its evidence."""

from typing import NamedTuple

from markupsafe import Markup

from canary_mw.admin.models.release import ReleaseAnswer
from canary_mw.admin.models.rollout import Rollout, RolloutStep
from canary_mw.admin.pages import bars
from canary_mw.admin.pages.rollout import phases
from canary_mw.admin.pages.rollout.evidence import Row, names, over_time, rows
from canary_mw.admin.pages.timeline import Figure
from canary_mw.admin.pages.wording import lasting, weight


class Stage(NamedTuple):
    """A step, or the bake at the end.

    Attributes:
        state: "done", "current", "ahead" or "fell": where it was taken back.
        word: the same for people who do not see it.
        under: how long it takes at least, or what it waits for.
    """

    title: str
    state: str
    word: str
    under: str


class RolloutView(NamedTuple):
    """All that is drawn of how far a release is."""

    label: str
    sign: tuple[str, str]
    said: phases.Said
    facts: list[tuple[str, str]]
    stages: list[Stage]
    progress: str
    progress_bar: Markup | None
    rows: list[Row]
    chart: Figure | None
    lines: list[str]
    commands: list[phases.Command]


_WORDS = {"done": "Done", "current": "Now", "ahead": "Ahead", "fell": "Taken back here"}


def rollout_view(answer: ReleaseAnswer) -> RolloutView | None:
    """How far a release is; None where nothing drives it."""
    rollout = answer["rollout"]
    if rollout is None:
        return None
    sign, tone, label = phases.PHASES[rollout["phase"]]
    return RolloutView(
        label=label,
        sign=(sign, tone),
        said=phases.said(rollout),
        facts=_facts(rollout),
        stages=stages(rollout),
        progress=phases.progress(rollout),
        progress_bar=_progress_bar(rollout),
        rows=rows(rollout),
        chart=over_time(answer["evidence"], rollout),
        lines=names(answer["evidence"]),
        commands=phases.commands(answer["name"], rollout),
    )


def _facts(rollout: Rollout) -> list[tuple[str, str]]:
    revision = f", revision {rollout['revision']}" if rollout["revision"] else ""
    controller = rollout["controller"]
    facts = [("Attempt", f"{rollout['attempt']}{revision}")]
    if rollout["items"]:
        here = ", which made this page" if controller["here"] else ""
        if (pods := controller["pods"]) is not None:
            here += f", {pods['reporting']} of {pods['known']} pods reporting"
        facts.append(("Controller", f"{controller['name']}{here}" if controller["name"] else "none is heard of"))
    facts += [(f"Query {each['name']}", f"{each['condition']}: {each['text']}") for each in rollout["queries"]]
    if rollout["promote"] == "manual":
        facts.append(("Raises", "each waits for promote"))
    if rollout["mode"] == "advise":
        facts.append(("Evidence", "advises only: it changes nothing by itself"))
    return facts


def stages(rollout: Rollout) -> list[Stage]:
    """The steps in their order, and the bake at the end."""
    before = phases.fell_from(rollout) if rollout["phase"] in ("RolledBack", "Aborted") else None
    fell = before["item"] if before else None
    found = [_stage(each, fell, phases.is_before(rollout)) for each in rollout["steps"]]
    if found and rollout["bake_seconds"]:
        state = {"Baking": "current", "Completed": "done"}.get(rollout["phase"], "ahead")
        stays = f", {weight(rollout['holdback'])} stay on stable" if rollout["holdback"] else ""
        found.append(Stage("Bake", state, _WORDS[state], f"{lasting(rollout['bake_seconds'])}{stays}"))
    return found


def _stage(step: RolloutStep, fell: int | None, before: bool) -> Stage:
    state: str = "ahead" if before and step["state"] == "current" else step["state"]
    if fell is not None:
        state = "fell" if step["item"] == fell else "done" if step["item"] < fell else "ahead"
    waits = [f"{lasting(step['pause_seconds'])} at least"] if step["pause_seconds"] else []
    if step["until_promoted"]:
        waits.append("until promoted")
    if not step["analysed"]:
        waits.append("by time alone")
    return Stage(weight(step["weight"]), state, _WORDS[state], ", ".join(waits))


def _progress_bar(rollout: Rollout) -> Markup | None:
    part, whole = rollout["elapsed_seconds"], rollout["pause_seconds"]
    if rollout["phase"] == "Baking":
        part, whole = rollout["baked_seconds"], rollout["bake_seconds"]
    return bars.length(min(part, whole), whole, "fill-tick") if whole and phases.progress(rollout) else None
