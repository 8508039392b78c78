"""Who the app knows a request by, in a WSGI environ."""

from canary_mw.routing.person import Person
from canary_mw.routing.table import RouteTable
from canary_mw.types import Environ


def with_user(person: Person, table: RouteTable, environ: Environ) -> Person:
    """The person with the user that layers outside have put into the environ, if a release asks for one."""
    if not table.asks_person:
        return person
    return person._replace(user=environ.get("canary_mw.user"))
