"""The static files of the pages, under names that hold a hash of their content: they may be kept for ever."""

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

HEADERS = {"cache-control": "public, max-age=31536000, immutable", "x-content-type-options": "nosniff"}
_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "woff2": "font/woff2",
}
_FONT = "inter.woff2"


class StaticFile(NamedTuple):
    """A file as it is sent."""

    content: bytes
    media_type: str


def _hashed(name: str, content: bytes) -> str:
    stem, _, ending = name.rpartition(".")
    return f"{stem}.{hashlib.sha256(content).hexdigest()[:12]}.{ending}"


@cache
def _files() -> dict[str, tuple[str, StaticFile]]:
    """Each file by its own name, with the name that it is asked for."""
    folder = files("canary_mw.admin").joinpath("static")
    contents = {each.name: each.read_bytes() for each in folder.iterdir() if each.name.rpartition(".")[2] in _TYPES}
    font = _hashed(_FONT, contents[_FONT])
    # The stylesheet names the font beside it.
    contents["pages.css"] = contents["pages.css"].replace(_FONT.encode(), font.encode())
    return {
        name: (_hashed(name, content), StaticFile(content, _TYPES[name.rpartition(".")[2]]))
        for name, content in contents.items()
    }


def hashed_name(name: str) -> str:
    """The name under which a file is asked for.

    Raises:
        KeyError: there is no such file.
    """
    return _files()[name][0]


@cache
def _by_hashed_name() -> dict[str, StaticFile]:
    return dict(_files().values())


def static_file(hashed: str) -> StaticFile | None:
    """A file by its hashed name; None if there is none."""
    return _by_hashed_name().get(hashed)
