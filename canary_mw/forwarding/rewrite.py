"""Path, Host and redirect target as a Mapping rewrites them."""

from canary_mw.exceptions import BadTarget
from canary_mw.http.messages import RequestHead
from canary_mw.rules.mapping import Mapping, Redirect


def request_host(mapping: Mapping, host: bytes, *, shadow: bool = False) -> bytes:
    """The Host that the upstream sees: the client's, unless the Mapping rewrites it.

    Args:
        shadow: for the copy, which `auto_host_rewrite` does not reach.
    """
    if mapping.host_rewrite:
        return mapping.host_rewrite.encode()
    return mapping.service.origin.host.encode() if mapping.auto_host_rewrite and not shadow else host


def rewrite_path(mapping: Mapping, path: bytes) -> bytes:
    """The path that the upstream sees (Envoy `prefix_rewrite` and `regex_rewrite`).

    Raises:
        BadTarget: a dot segment came out of joining, `/svc../x` under `/svc` -> `/api/` for one.
    """
    if mapping.regex_rewrite is not None:
        new = mapping.regex_rewrite.apply(path)
    elif not mapping.rewrite:
        return path
    elif mapping.prefix_kind == "plain":
        new = mapping.rewrite.encode() + path[len(mapping.prefix_bytes) :]
    else:
        new = mapping.rewrite.encode()
    new = _rooted(new)
    if b"/." in new and not {b".", b".."}.isdisjoint(new.partition(b"?")[0].split(b"/")):
        raise BadTarget("the rewritten path would climb out of the rewrite")
    return new


def _rooted(target: bytes) -> bytes:
    """With a slash before it: else what a client put into the path could name a host, as in `http://...`."""
    return target if target[:1] == b"/" else b"/" + target


def redirect_location(redirect: Redirect, mapping: Mapping, head: RequestHead) -> bytes:
    """Where a redirect leads; the query is kept, unless `path_redirect` brings one."""
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
    return head.scheme.encode() + b"://" + redirect.host.encode() + _rooted(target) + query


def _shadow_host(host: bytes) -> bytes:
    """`-shadow` behind the name; an address in brackets stays, since with anything behind it it would be no Host."""
    name, colon, port = host.partition(b":")
    return host if host[:1] == b"[" else b"%b-shadow%b%b" % (name, colon, port)
