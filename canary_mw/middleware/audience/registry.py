"""What an app registers: its predicates, and the function that gives the user of a request."""

from collections.abc import Callable, MutableMapping
from functools import partial
from math import isfinite
from typing import Any, NamedTuple, TypeVar, overload

from canary_mw.exceptions import ConfigError
from canary_mw.http.messages import RequestHead

F = TypeVar("F", bound=Callable[..., Any])
GetUser = Callable[[Any], Any]
G = TypeVar("G", bound=GetUser)
# Seconds. Without the user a request may get another variant, so that there is more patience.
_PREDICATE_TIMEOUT = 0.05
_USER_TIMEOUT = 1.0


class Registered(NamedTuple):
    """A function of the app.

    Attributes:
        name: of the predicate, None for the function of the user.
        timeout: seconds until its answer counts as missing.
        threaded: it runs in a pool of threads.
    """

    name: str | None
    function: Callable[..., Any]
    timeout: float
    threaded: bool


predicates: dict[str, Registered] = {}
# The function of the user, if there is one.
users: list[Registered] = []
# Where a scope or environ has the function by which a framework finds the user.
FIND_USER = "canary_mw.find_user"


def predicate(name: str, *, timeout: float = _PREDICATE_TIMEOUT, threaded: bool = False) -> Callable[[F], F]:
    """Register a function as the predicate of a name that an `audience` or `consent` gives.

    It is called with the `RequestHead` and the scope (ASGI) or the environ (WSGI), at most once for a request, and only
    where a release needs its answer. It may be async. Only True is true. Where it raises, or has no answer in time,
    nobody is drawn into gray by it. A later one of the same name replaces it.

    Args:
        timeout: seconds. What is not async runs where it is called, and cannot be stopped: after three late answers in
            a minute it is not called for a minute.
        threaded: it is called in a thread, where it can be left behind.

    Raises:
        ConfigError: an argument cannot be meant.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{name!r} is no name of a predicate", hint='write @canary_mw.predicate("beta_testers")')
    _check_timeout(timeout)

    def register(function: F) -> F:
        predicates[name] = Registered(name, function, timeout, threaded)
        return function

    return register


@overload
def user(function: G, /) -> G: ...


@overload
def user(*, timeout: float = ..., threaded: bool = ...) -> Callable[[G], G]: ...


def user(function: Any = None, /, *, timeout: float = _USER_TIMEOUT, threaded: bool = False) -> Any:
    """Register the function that gives the user of a request; None for nobody.

    It is called with the scope (ASGI) or the environ (WSGI), at most once for a request, and only where a release needs
    the user. It may be async. A later one replaces it. See `predicate` for the arguments.

    Raises:
        ConfigError: an argument cannot be meant.
    """
    _check_timeout(timeout)

    def register(function: G) -> G:
        users[:] = [Registered(None, function, timeout, threaded)]
        return function

    return register if function is None else register(function)


def _check_timeout(timeout: float) -> None:
    if not (isinstance(timeout, int | float) and isfinite(timeout) and timeout > 0):
        raise ConfigError(f"timeout={timeout!r} is no number of seconds above 0", hint="write timeout=0.05")


def is_asked(place: MutableMapping[str, Any]) -> bool:
    """Whether a function gives the user of a request."""
    return bool(users) or FIND_USER in place


def user_function(place: MutableMapping[str, Any]) -> Registered | None:
    """The function that gives the user: that of the app, else that of its framework."""
    if users:
        return users[0]
    found = place.get(FIND_USER)
    return None if found is None else Registered(None, found, _USER_TIMEOUT, threaded=False)


def call_of(function: Registered, head: RequestHead, place: MutableMapping[str, Any]) -> Callable[[], Any]:
    """The call of a function for a request.

    Args:
        place: the scope or environ.
    """
    if function.name is None:
        return partial(function.function, place)
    return partial(function.function, head, place)
