"""Who the app knows a request by, in a WSGI environ."""

from canary_mw.middleware.audience.registry import is_asked
from canary_mw.routing.person import UNASKED, Person
from canary_mw.routing.table import RouteTable
from canary_mw.types import Environ


def with_user(person: Person, table: RouteTable, environ: Environ) -> Person:
    """The person with the user and session that layers outside have put into the environ, if a release asks for them.

    Where the app has registered a function for the user, that is called when a decision needs it.
    """
    if not table.asks_person:
        return person
    user = UNASKED if is_asked(environ) else environ.get("canary_mw.user")
    return person._replace(user=user, session=environ.get("canary_mw.session"))
