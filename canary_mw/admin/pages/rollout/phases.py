"""How far a release is, in words: its phase, what it waits for, and the commands that help now."""

import shlex
from typing import NamedTuple

from canary_mw.admin.models.rollout import Phase, Rollout, RolloutChange
from canary_mw.admin.pages.wording import lasting, moment, weight

# Sign, tone and words of each phase.
PHASES: dict[Phase, tuple[str, str, str]] = {
    "Manual": ("minus", "", "Manual"),
    "Pending": ("clock", "", "Pending"),
    "Progressing": ("arrow", "good", "Progressing"),
    "Paused": ("pause", "", "Paused"),
    "Held": ("diamond", "warn", "Held"),
    "Baking": ("arrow", "good", "Baking"),
    "Completed": ("check", "good", "Completed"),
    "RolledBack": ("triangle", "bad", "Rolled back"),
    "Aborted": ("minus", "", "Aborted"),
}


class Said(NamedTuple):
    """A phase in words.

    Attributes:
        headline: where the release is.
        details: why, and what is missing.
    """

    headline: str
    details: list[str]


class Command(NamedTuple):
    """A command of the command line to copy, and what it does now."""

    text: str
    does: str


def pill(rollout: Rollout | None) -> tuple[str, tuple[str, str]] | None:
    """The phase as a label, with sign and tone; None where nothing drives the release, or it has no steps."""
    if rollout is None or rollout["phase"] == "Manual":
        return None
    sign, tone, label = PHASES[rollout["phase"]]
    return label, (sign, tone)


def place(rollout: Rollout) -> str:
    """Which of the written steps is in force: "step 3 of 9", or "before step 3 of 9" with less than its weight.

    Empty before the first one, and without steps.
    """
    if not rollout["item"] or not rollout["items"]:
        return ""
    return f"{'before ' if is_before(rollout) else ''}step {rollout['item']} of {rollout['items']}"


def is_before(rollout: Rollout) -> bool:
    """Whether gray gets less than its step gives: somebody has set another weight, or it has not begun."""
    if rollout["phase"] in ("RolledBack", "Aborted"):
        return False
    step = next((each for each in rollout["steps"] if each["item"] == rollout["item"]), None)
    return step is not None and rollout["weight"] < step["weight"] - 1e-6


def said(rollout: Rollout) -> Said:
    """Where a release is, why, and what is missing."""
    if rollout["stopped"] and rollout["phase"] not in ("RolledBack", "Aborted"):
        return Said("Stopped with all other releases: everybody is on stable.", [])
    headline = _HEADLINES[rollout["phase"]](rollout)
    return Said(headline, [each for each in (_why(rollout), *_missing(rollout)) if each])


def _why(rollout: Rollout) -> str:
    reason = rollout["reason"]
    if not reason.startswith("the command "):
        return _sentence(reason)
    who = rollout["history"][0]["who"] if rollout["history"] else ""
    return _sentence(f"by {reason}{f' of {who}' if who else ''}")


def _gray(rollout: Rollout) -> str:
    return weight(rollout["weight"])


def _progressing(rollout: Rollout) -> str:
    return f"{place(rollout).capitalize() or 'Before the first step'}: gray gets {_gray(rollout)}."


def _stays(word: str, rollout: Rollout) -> str:
    where = place(rollout)
    at = " " if is_before(rollout) else " at "
    return f"{word}{at + where if where else ''}: gray stays at {_gray(rollout)}."


def _completed(rollout: Rollout) -> str:
    rest = 100 - rollout["weight"]
    return f"Completed: gray gets {_gray(rollout)}" + (f", and {weight(rest)} stay on stable." if rest > 0 else ".")


def _when(rollout: Rollout) -> str:
    return f" at {moment(rollout['since']):%H:%M}" if rollout["since"] else ""


def _aborted(rollout: Rollout) -> str:
    who = next((each["who"] for each in rollout["history"] if each["after"] == "Aborted"), "")
    return f"Taken back{_when(rollout)}{f' by {who}' if who else ''}: everybody is on stable."


_HEADLINES = {
    "Manual": lambda each: "The document says what gray gets: there are no steps.",
    "Pending": lambda each: "Nobody gets gray yet.",
    "Progressing": _progressing,
    "Paused": lambda each: _stays("Paused", each),
    "Held": lambda each: _stays("Held", each),
    "Baking": lambda each: f"All steps are done: gray gets {_gray(each)}, and bakes.",
    "Completed": _completed,
    "RolledBack": lambda each: f"Rolled back{_when(each)}: everybody is on stable.",
    "Aborted": _aborted,
}


def _missing(rollout: Rollout) -> list[str]:
    """What has to be before it goes on; of one that was taken back, from where."""
    if rollout["phase"] in ("RolledBack", "Aborted"):
        return [_fell(rollout), "Only who chooses gray by name still gets it."]
    if rollout["phase"] in ("Manual", "Completed"):
        return []
    following, text = rollout["next"], rollout["next"]["text"]
    taken = following["weight"] is not None and following["weight"] <= rollout["weight"]
    if not text or taken or text in rollout["reason"]:
        return []
    before = "" if following["weight"] is None else f"before the step to {weight(following['weight'])}: "
    return [_sentence(before + text)]


def _fell(rollout: Rollout) -> str:
    """Where it was before it was taken back."""
    before = fell_from(rollout)
    if before is None:
        return ""
    return f"Gray got {weight(sum(before['weights'].values()))} then, in step {before['item']} of {rollout['items']}."


def fell_from(rollout: Rollout) -> RolloutChange | None:
    """The last change before a release was taken back; None where it is not known, or gray got nothing."""
    history = rollout["history"]
    taken = next((at for at, each in enumerate(history) if each["after"] in ("RolledBack", "Aborted")), None)
    before = None if taken is None or taken + 1 >= len(history) else history[taken + 1]
    return before if before and any(before["weights"].values()) else None


def _sentence(text: str) -> str:
    """A reason as a sentence."""
    text = text.strip()
    return text and text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def progress(rollout: Rollout) -> str:
    """How long a step, or the bake, has been: "7 min 12 s of at least 10 min"; empty where nothing goes on."""
    if rollout["phase"] == "Baking":
        baked = lasting(rollout["baked_seconds"])
        return f"{baked} of {lasting(rollout['bake_seconds'])}" if rollout["bake_seconds"] else baked
    if rollout["phase"] not in ("Progressing", "Paused", "Held"):
        return ""
    elapsed = lasting(rollout["elapsed_seconds"])
    return f"{elapsed} of at least {lasting(rollout['pause_seconds'])}" if rollout["pause_seconds"] else elapsed


def commands(name: str, rollout: Rollout) -> list[Command]:
    """The commands that are not refused now, each with what it does."""
    allowed, phase = rollout["commands"], rollout["phase"]
    found = []
    if "promote" in allowed and phase != "Completed":
        found.append(Command("promote NAME", _promote(rollout)))
        if phase != "Baking":
            found.append(Command("promote --full NAME", "goes to the end at once, and bakes"))
    if "resume" in allowed:
        found.append(Command("resume NAME", "goes on, and still waits for evidence"))
    if "pause" in allowed and phase != "Paused":
        found.append(Command("pause NAME", f"stays at {_gray(rollout)} until somebody resumes it"))
    if "set-weight" in allowed:
        found.append(Command("set-weight NAME 10", "gives gray 10 %, and pauses there"))
    if "retry" in allowed:
        found.append(Command("retry NAME", f"begins attempt {rollout['attempt'] + 1} with new evidence"))
    if "abort" in allowed and phase not in ("RolledBack", "Aborted"):
        found.append(Command("abort NAME", "puts everybody on stable, with the next request"))
    quoted = shlex.quote(name)
    return [each._replace(text="canary-mw release " + each.text.replace("NAME", quoted)) for each in found]


def _promote(rollout: Rollout) -> str:
    phase, following = rollout["phase"], rollout["next"]["weight"]
    if phase == "Baking":
        return "ends the bake"
    verb = "begins" if phase == "Pending" else "takes the next step"
    to = "" if following is None else f", to {weight(following)}"
    return f"{verb}{to}, without waiting for evidence"
