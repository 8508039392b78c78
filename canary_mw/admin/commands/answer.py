"""Commands for a release: who gives one is looked at first, and a refusal leaves nothing behind."""

from collections.abc import Callable
from collections.abc import Mapping as Dict
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.requests import Request

from canary_mw.admin.answers.frame import frame
from canary_mw.admin.commands.request import Asked, asked, etag, path_of, permitted
from canary_mw.admin.commands.tokens import TokenFile
from canary_mw.admin.desk import Desk
from canary_mw.admin.errors import Refused
from canary_mw.admin.models.releases import CommandAnswer
from canary_mw.admin.subject import Subject
from canary_mw.exceptions import CommandRefused, StoreAway, VersionMoved
from canary_mw.observability.figures.values import Figures
from canary_mw.rollout.commands import Command, Who

if TYPE_CHECKING:
    from canary_mw.control.rollouts.rollouts import Rollouts

FindRollouts = Callable[[], "Rollouts | None"]


class Commands(NamedTuple):
    """What commands need.

    Attributes:
        tokens: of those who may give them.
        rollouts: what drives the releases; None where nothing does.
    """

    tokens: TokenFile
    rollouts: FindRollouts


async def command_answer(desk: Desk, commands: Commands, request: Request) -> CommandAnswer:
    """Give a command, and answer with what the release is then.

    Raises:
        Refused: it must not be given, is none, or does not fit the release.
    """
    token = permitted(await desk.run(commands.tokens.read), request, path_of(request)[1])
    wanted = await asked(request)
    client = request.client
    address = client.host if client is not None else ""

    def give(subject: Subject, figures: Figures) -> CommandAnswer:
        _give(commands.rollouts(), wanted, Who(token.subject, address, subject.clock()))
        desk.forget()
        return {**frame(subject, figures), "name": wanted.release, "rollout": subject.rollout(wanted.release)}

    return await desk.ask(give)


def _give(rollouts: "Rollouts | None", wanted: Asked, who: Who) -> None:
    if rollouts is None:
        raise Refused(503, "not-driven", "nothing drives releases here: this port belongs to no middleware that runs")
    if rollouts.standing(wanted.release) is None:
        message = "there is no GrayRelease of this name; /api/v1/releases lists all"
        raise Refused(404, "unknown-release", message)
    command = Command(name=wanted.command, weight=wanted.weight, full=wanted.full)
    try:
        rollouts.command(wanted.release, command, wanted.version, who)
    except CommandRefused as exc:
        raise Refused(409, "refused", str(exc)) from exc
    except VersionMoved as exc:
        raise Refused(412, "version-moved", str(exc)) from exc
    except StoreAway as exc:
        raise Refused(503, "store-away", str(exc), {"retry-after": "5"}) from exc


def tag_of(answer: Any) -> Dict[str, str]:
    """The header with the version of the state, of an answer about one release."""
    rollout = answer.get("rollout")
    return {} if rollout is None else {"etag": etag(rollout["version"])}
