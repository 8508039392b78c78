"""The root path under which an app is mounted (ASGI `root_path`, WSGI `SCRIPT_NAME`), taken off a path."""

from functools import lru_cache
from urllib.parse import quote, unquote

from canary_mw.http.messages import Mount
from canary_mw.http.target import PATH_SAFE


def split_mount(path: bytes, root: str, added: str = "") -> tuple[Mount, bytes]:
    """Take the root path off a path that is not normalised yet.

    What is left is normalised by itself, so that dot segments do not climb out of the root path. A path that is the
    root path alone keeps it: what is left must begin with a slash.

    Args:
        path: escaped.
        root: the whole root path, decoded.
        added: what the server puts before the path that it receives, decoded.

    Returns:
        The mount, and the path behind it.
    """
    prefix = added.encode()
    received = path[len(prefix) :] if path.startswith(prefix + b"/") else path
    inner = _behind(root, added).rstrip("/")
    sent = _sent(received, inner) if inner else b""
    mount = Mount(escape_root(root.rstrip("/")), sent, path.removesuffix(received))
    return mount, received[len(sent) :]


def _behind(root: str, added: str) -> str:
    """The part of a root path that is not added by the server; an app may set another one than its server."""
    rest = root.removeprefix(added.rstrip("/"))
    return rest if rest[:1] in ("", "/") else root


def _sent(path: bytes, inner: str) -> bytes:
    """The part of a path that is the root path, however it is escaped; empty when it begins with another one."""
    segments = path.split(b"/", inner.count("/") + 1)
    sent = b"/".join(segments[:-1])
    same = len(segments) == inner.count("/") + 2 and unquote(sent.decode("latin-1")) == inner
    # Dot segments stay behind, where they are resolved.
    return sent if same and not {".", ".."} & set(inner.split("/")) else b""


@lru_cache(64)
def escape_root(root: str) -> bytes:
    """A root path as it stands in URLs."""
    return quote(root, safe=PATH_SAFE).encode()
