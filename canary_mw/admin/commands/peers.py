"""What pods ask each other over their admin ports, with the scope `peer`: evidence, and to believe in a rollback."""

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from canary_mw.admin.answers.frame import frame
from canary_mw.admin.commands.answer import Commands
from canary_mw.admin.commands.request import path_of, permitted_peer
from canary_mw.admin.desk import Desk
from canary_mw.admin.errors import Refused
from canary_mw.admin.models.releases import RolledBackAnswer
from canary_mw.admin.parameters import json_body
from canary_mw.admin.subject import Subject
from canary_mw.exceptions import CommandRefused
from canary_mw.observability.figures.values import Figures
from canary_mw.rollout.state import LATCHED, Phase

if TYPE_CHECKING:
    from canary_mw.control.rollouts.rollouts import Rollouts

COMMAND = "rolled-back"
CURSOR = "x-canary-mw-cursor"
MEDIA_TYPE = "application/octet-stream"
_MOST_CURSOR, _MOST_REASON, _MOST_ATTEMPTS = 200, 1000, 1 << 31
_EXAMPLE = '{"attempt": 1, "reason": "..."}'


async def evidence_response(desk: Desk, commands: Commands, request: Request) -> Response:
    """What this pod has seen; raises Refused."""
    from canary_mw.control.rollouts.peers.asked import evidence_of

    permitted_peer(await desk.run(commands.tokens.read), request)
    cursor = request.query_params.get("since", "")[:_MOST_CURSOR]
    try:
        given = await desk.run(lambda: evidence_of(_driving(commands), cursor))
    except OSError as exc:
        raise Refused(503, "unreadable", f"the evidence cannot be read: {exc}", {"retry-after": "5"}) from exc
    headers = {CURSOR: given.cursor}
    if given.data is None:
        return Response(status_code=304, headers=headers)
    return Response(given.data, media_type=MEDIA_TYPE, headers=headers)


async def rolled_back_answer(desk: Desk, commands: Commands, request: Request) -> RolledBackAnswer:
    """Believe a pod that has rolled a release back; raises Refused."""
    from canary_mw.control.rollouts.peers.asked import RolledBack, believe

    token = permitted_peer(await desk.run(commands.tokens.read), request)
    fields: Any = await json_body(request, _EXAMPLE)
    attempt, phase, reason = _attempt(fields), _phase(fields), str(fields.get("reason", ""))[:_MOST_REASON]
    client = request.client
    told = RolledBack(path_of(request)[0], attempt, reason, phase, token.subject, client.host if client else "")

    def tell() -> bool:
        try:
            return believe(_driving(commands), told)
        except CommandRefused as exc:
            raise Refused(409, "refused", str(exc)) from exc

    lowered = await desk.run(tell)
    desk.forget()

    def answer(subject: Subject, figures: Figures) -> RolledBackAnswer:
        return {**frame(subject, figures), "name": told.name, "attempt": attempt, "lowered": lowered}

    return await desk.ask(answer)


def _attempt(fields: Any) -> int:
    found = fields.get("attempt") if isinstance(fields, dict) else None
    if not isinstance(found, int) or isinstance(found, bool) or not 0 < found < _MOST_ATTEMPTS:
        raise Refused(400, "bad-attempt", f"the body names no attempt: write {_EXAMPLE}")
    return found


def _phase(fields: Any) -> Phase:
    found = fields.get("phase", LATCHED[0])
    if found not in LATCHED:
        raise Refused(400, "bad-phase", f"the phase is one of {', '.join(LATCHED)}")
    return LATCHED[LATCHED.index(found)]


def _driving(commands: Commands) -> "Rollouts":
    found = commands.rollouts()
    if found is None:
        raise Refused(503, "not-driven", "nothing drives releases here: this port belongs to no middleware that runs")
    return found
