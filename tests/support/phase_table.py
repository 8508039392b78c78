"""What each command leads to, by the phase that it is given in."""

from typing import Any

from canary_mw.rollout.state import Phase

ON: dict[str, Any] = {"promote": "Progressing", "full": "Baking", "pause": "Paused", "set-weight": "Paused"}
OVER: dict[str, Any] = dict.fromkeys(("promote", "full", "pause", "resume", "set-weight"), 409)
# The phase after a command; 409 where it is refused. "full" is promote --full.
TABLE: dict[Phase, dict[str, Any]] = {
    "Pending": {**ON, "resume": 409},
    "Progressing": {**ON, "resume": 409},
    "Paused": {**ON, "resume": "Progressing"},
    "Held": {**ON, "resume": "Progressing"},
    "Baking": {**ON, "promote": "Completed", "full": "Completed", "resume": 409},
    "Completed": OVER,
    "RolledBack": {**OVER, "abort": "RolledBack", "retry": "Pending", "undo": 409},
    "Aborted": {**OVER, "abort": "Aborted", "retry": "Pending", "undo": 409},
}
OTHERWISE = {"abort": "Aborted", "retry": 409, "undo": "Aborted"}
# Commands that change nothing, and are not refused.
UNCHANGED = {("pause", "Paused"), ("abort", "RolledBack"), ("abort", "Aborted")}
