"""What services are asked about every request before it goes on."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from canary_mw.rules.filters.auth import AuthPolicy


@dataclass(frozen=True, slots=True)
class Filters:
    """What is asked about every request.

    Attributes:
        auth: None where no AuthService is in force.
        auth_in_error: the name of an AuthService in error without a good version; what it guards is answered with 500.
        auth_is_local: the AuthService is this process, which asks nobody.
    """

    auth: AuthPolicy | None = None
    auth_in_error: str = ""
    auth_is_local: bool = False

    def seen_by(self, local: Collection[str]) -> "Filters | None":
        """These filters in a process of some names; None where nothing is asked.

        An auth service that wears the middleware would ask itself.
        """
        if self.auth is not None and any(name in local for each in self.auth.services for name in each.names):
            return replace(self, auth=None, auth_is_local=True).seen_by(())
        return self if self.auth is not None or self.auth_in_error else None


NO_FILTERS = Filters()
