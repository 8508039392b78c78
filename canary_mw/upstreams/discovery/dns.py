"""Host names of services, resolved to addresses."""

import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address

from canary_mw.client.aio.name_lookup import look_up
from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamTimeout
from canary_mw.host import HostLogger
from canary_mw.rules.upstream import Origin
from canary_mw.upstreams.discovery.interface import Sleep

logger = HostLogger(logging.getLogger("canary_mw.endpoints"))

# Seconds between two look-ups of the same name.
DNS_INTERVAL = 5.0
# Seconds between two look-ups while no address is known and after the first failure, and the longest pause, to which
# further failures double it. A name server that is down, or a service that does not exist, is not asked all the time.
_UNRESOLVED_INTERVAL = 1.0
_LONGEST_PAUSE = 30.0

_REMEDY = "Where it is no name in DNS, give its URL: upstreams=, --upstream or CANARY_MW_UPSTREAM"

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name from the resolver of the system; IPv6 addresses only where there is no IPv4 address.

    A pod often resolves IPv6 addresses that it cannot reach: with both in use, half of the requests would fail.

    Raises:
        OSError: the name has no address.
        UnicodeError: the text is no valid host name.
    """
    found = await look_up(host, port)
    of_ipv4 = [str(address[0]) for family, _, _, _, address in found if family == socket.AF_INET]
    return list(dict.fromkeys(of_ipv4 or (str(address[0]) for *_, address in found)))


def is_looked_up(host: str) -> bool:
    """Whether a host is a name that may have several addresses; "localhost" is this host alone (RFC 6761)."""
    if host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        ip_address(host)
    except ValueError:
        return True
    return False


def pause_after(failures: int, interval: float, *, known: bool) -> float:
    """Seconds to the next look-up of a name.

    Args:
        failures: look-ups in a row that failed, the last one included.
        interval: seconds between two look-ups of a name.
        known: whether requests have addresses to go to meanwhile.
    """
    if not failures:
        return interval
    first = interval if known else min(interval, _UNRESOLVED_INTERVAL)
    # The exponent is bounded, because a float is.
    return min(first * 2.0 ** min(failures - 1, 32), max(interval, _LONGEST_PAUSE))


class OriginResolver:
    """The origins of a service, with the names among them resolved to addresses.

    Args:
        origins: where the service is; each name among them may have several addresses.
        resolve: see the function of that name, also for its errors.
        look_up: False leaves names to the transport that opens the connections.

    Attributes:
        names: the origins whose host is looked up.
    """

    def __init__(self, origins: Sequence[Origin], resolve: Resolve, *, look_up: bool) -> None:
        self.names = [origin for origin in dict.fromkeys(origins) if look_up and is_looked_up(origin.host)]
        self._origins = origins
        self._resolve = resolve
        self._resolved = {origin: [origin] for origin in origins if origin not in self.names}
        self._errors: dict[str, str] = {}

    def resolved(self) -> list[Origin] | None:
        """Each known origin once, in the order given; a name without a known address is left out."""
        found = dict.fromkeys(each for origin in self._origins for each in self._resolved.get(origin, ()))
        return list(found) or None

    async def look_up(self, origin: Origin) -> bool:
        """Resolve one of `names`. False if that failed; then it keeps its last addresses."""
        try:
            addresses = await self._resolve(origin.host, origin.port)
        except (OSError, UnicodeError) as exc:
            self._record_error(origin, f"{origin.host}: no address: {exc}")
            return False
        self._errors.pop(origin.host, None)
        # Name servers rotate the addresses; sorted, they do not change their order with every response.
        self._resolved[origin] = [origin._replace(address=address) for address in sorted(addresses)]
        return True

    async def pause(self, seconds: float, sleep: Sleep) -> float:
        """Wait before the next look-up; see `Resolver`."""
        await sleep(seconds)
        return seconds

    def _record_error(self, origin: Origin, text: str) -> None:
        # Without addresses, requests fail, and their errors are logged.
        if origin.host not in self._errors and origin in self._resolved:
            logger.warning("%s; its last addresses stay in use", text)
        self._errors[origin.host] = text

    def error(self, *, at_deadline: bool) -> UpstreamError:
        """The error of a request while no address is known.

        Args:
            at_deadline: the deadline of the request passed while it waited.
        """
        names = ", ".join(origin.host for origin in self.names)
        if at_deadline:
            return UpstreamTimeout(f"{names}: the deadline passed while the name was looked up")
        text = "; ".join(self._errors.values()) or f"{names}: the name was not looked up in time"
        return UpstreamConnectError(f"{text}. {_REMEDY}")
