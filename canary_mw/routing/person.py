"""What a decision may ask about who sends a request, besides its head."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from canary_mw.http.messages import RequestHead

# Whether `via` says that a canary-mw sent the request to the service of a comment (`Service.via_comment`).
IsSent = Callable[[RequestHead, bytes], bool]
# Whether a header of a name, or a cookie of a name and a value, has a valid signature.
IsSigned = Callable[[RequestHead, bytes], bool]
VerifyCookie = Callable[[bytes, bytes], bytes | None]


def has_comment(head: RequestHead, comment: bytes) -> bool:
    """Whether `via` holds the comment; where nothing is signed, that is believed of any peer."""
    return head.any_value_matches(b"via", lambda value: comment in value)


def not_signed(head: RequestHead, name: bytes) -> bool:
    """Where there are no keys, nothing is signed."""
    return False


def plain_cookie(name: bytes, value: bytes) -> bytes | None:
    """Where there are no keys, the value of a cookie is believed as it is."""
    return value


# In place of a user: the app was not asked yet, or its function has failed.
UNASKED, FAILED = object(), object()


class Question(NamedTuple):
    """What a decision needs to know: the answer of a predicate, or who the user is, which has no predicate."""

    predicate: str | None = None


class Person(NamedTuple):
    """Who sends a request.

    Attributes:
        user: the user that the app knows, None for nobody.
        session: the session of the app.
        predicates: the answers of the predicates that were asked, by name; only True is true, None is no answer.
        trusted: whether the peer is trusted.
        client: the address of the client behind trusted proxies, None for that of the head.
        is_sent: how `via` is read.
        is_signed: how signatures of headers are checked.
        verify_cookie: the value of a signed cookie, None for an invalid one.
        new_id: draws the 22 characters of an anonymous id; None for those that follow from the roll.
        questions: where decisions note what they need to know, None where nobody can be asked.
        stable_of: the release whose stable side is asked for, in place of its gray variant that has failed.
    """

    user: Any = None
    session: Any = None
    predicates: Mapping[str, bool | None] = {}
    trusted: bool = False
    client: str | None = None
    is_sent: IsSent = has_comment
    is_signed: IsSigned = not_signed
    verify_cookie: VerifyCookie = plain_cookie
    new_id: Callable[[], bytes] | None = None
    stable_of: str | None = None
    questions: list[Question] | None = None


NOBODY = Person()
