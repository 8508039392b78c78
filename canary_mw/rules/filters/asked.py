"""What services are asked about every request before it goes on."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from canary_mw.rules.filters.auth import AuthPolicy
from canary_mw.rules.filters.limits import RateLimitPolicy


@dataclass(frozen=True, slots=True)
class Filters:
    """What is asked about every request.

    Attributes:
        auth: None where no AuthService is in force.
        auth_in_error: the name of an AuthService in error without a good version; what it guards is answered with 500.
        auth_is_local: the AuthService is this process, which asks nobody.
        rate_limit: None where no RateLimitService is in force.
    """

    auth: AuthPolicy | None = None
    auth_in_error: str = ""
    auth_is_local: bool = False
    rate_limit: RateLimitPolicy | None = None

    def seen_by(self, local: Collection[str]) -> "Filters | None":
        """These filters in a process of some names; None where nothing is asked.

        An auth service that wears the middleware would ask itself.
        """
        if self.auth is not None and any(name in local for each in self.auth.services for name in each.names):
            return replace(self, auth=None, auth_is_local=True).seen_by(())
        return self if self.auth is not None or self.auth_in_error or self.rate_limit is not None else None


NO_FILTERS = Filters()
