"""Host and port of a request: the Host header, and the authority of an absolute-form target, which takes its place."""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple

from canary_mw.exceptions import BadTarget, ClientError

_Headers = Sequence[tuple[bytes, bytes]]
# RFC 3986, section 3.2.2, without the comma, which joins two Hosts. A percent sign must begin an escape.
_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?")
_ABSOLUTE = re.compile(rb"(https?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}


class AbsoluteTarget(NamedTuple):
    """The parts of an absolute-form target.

    Attributes:
        scheme: "http" or "https".
        authority: host, and port if there is one; a valid Host.
        origin_form: path and query.
    """

    scheme: bytes
    authority: bytes
    origin_form: bytes

    def names(self, host: bytes) -> bool:
        """Whether a Host is the same as the authority: without case, and without the default port of the scheme."""
        return self._comparable(host) == self._comparable(self.authority)

    def _comparable(self, host: bytes) -> bytes:
        return host.strip(b" \t").lower().removesuffix(_DEFAULT_PORTS[self.scheme]).removesuffix(b":")


@lru_cache(maxsize=256)
def check_host(value: bytes) -> None:
    """Raise ClientError unless a Host is a name or an address, with or without a port (RFC 9110, section 7.2).

    An empty one is refused too: it belongs to targets without an authority, which http does not have.
    """
    found = _HOST.fullmatch(value.strip(b" \t"))
    if found is None or len(value) > 300 or int(found[2] or 0) > 65535:
        raise ClientError("the Host is not a name or an address")
    if found[1] is not None:
        try:
            IPv6Address(found[1].decode())
        except AddressValueError:
            raise ClientError("the Host is not an IPv6 address") from None


def split_absolute(target: bytes) -> AbsoluteTarget | None:
    """The parts of a target that is an http or https URL (RFC 9112, section 3.2.2), None for any other.

    Raises:
        BadTarget: its authority is not a valid Host; with user information it is none (RFC 9110, section 4.2.4).
    """
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        return None
    scheme, authority, rest = found.groups()
    try:
        check_host(authority)
    except ClientError as exc:
        raise BadTarget(f"the authority of the target is none: {exc}") from None
    return AbsoluteTarget(scheme.lower(), authority, rest if rest[:1] == b"/" else b"/" + rest)


def with_host(headers: _Headers, host: bytes) -> _Headers:
    """The headers with another Host. A repeated one stays repeated, so that it is still refused."""
    if not any(name == b"host" for name, _ in headers):
        return [(b"host", host), *headers]
    return [(name, host if name == b"host" else value) for name, value in headers]


def check_authority(target: AbsoluteTarget, hosts: Sequence[bytes]) -> None:
    """Raise BadTarget unless each Host is the same as the authority of the target.

    For servers that show the Host to other code before this package: to replace it then would make two views of one
    request.
    """
    if not all(map(target.names, hosts)):
        raise BadTarget("the target and Host name different hosts")
