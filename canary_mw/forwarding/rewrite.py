"""Rewrites of path, Host and redirect target by a Mapping."""

from canary_mw.exceptions import BadTarget
from canary_mw.http.messages import RequestHead
from canary_mw.rules.mapping import Mapping, Redirect


def request_host(mapping: Mapping, host: bytes, *, shadow: bool = False) -> bytes:
    """The Host for the upstream: the client's, unless the Mapping rewrites it.

    Args:
        shadow: the Host is for the copy of a request; `auto_host_rewrite` does not apply to it.
    """
    if mapping.host_rewrite:
        return mapping.host_rewrite.encode()
    return mapping.service.origin.host.encode() if mapping.auto_host_rewrite and not shadow else host


def rewrite_path(mapping: Mapping, path: bytes) -> bytes:
    """The path for the upstream (Envoy `prefix_rewrite` and `regex_rewrite`).

    Raises:
        BadTarget: the result holds a dot segment, as `/svc../x` does under `prefix: /svc`, `rewrite: /api/`.
    """
    if mapping.regex_rewrite is not None:
        new = mapping.regex_rewrite.apply(path)
    elif not mapping.rewrite:
        return path
    elif mapping.prefix_kind == "plain":
        new = mapping.rewrite.encode() + path[len(mapping.prefix_bytes) :]
    else:
        new = mapping.rewrite.encode()
    new = _with_leading_slash(new)
    if b"/." in new and not {b".", b".."}.isdisjoint(new.partition(b"?")[0].split(b"/")):
        raise BadTarget("the rewritten path would climb out of the rewrite")
    return new


def _with_leading_slash(target: bytes) -> bytes:
    """A target with a leading slash; without it, text from the client's path could name a host, as in `http://...`."""
    return target if target[:1] == b"/" else b"/" + target


def redirect_location(redirect: Redirect, mapping: Mapping, head: RequestHead) -> bytes:
    """The Location of a redirect; the query is kept, unless `path_redirect` has its own.

    A root path stands in front of every path, as it does in that of the client.
    """
    query = head.query
    if redirect.path is not None:
        target = redirect.path.encode()
        query = b"" if b"?" in target else query
    elif redirect.prefix is not None:
        rest = head.path[len(mapping.prefix_bytes) :] if mapping.prefix_kind == "plain" else b""
        target = redirect.prefix.encode() + rest
    elif redirect.regex is not None:
        target = redirect.regex.apply(head.path)
    else:
        target = head.path
    return (
        head.scheme.encode() + b"://" + redirect.host.encode() + head.mount.root + _with_leading_slash(target) + query
    )


def shadow_host(host: bytes) -> bytes:
    """The Host with `-shadow` after the name; an IPv6 address in brackets is unchanged, else the Host is invalid."""
    name, colon, port = host.partition(b":")
    return host if host[:1] == b"[" else b"%b-shadow%b%b" % (name, colon, port)
