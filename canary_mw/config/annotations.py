"""The annotation `getambassador.io/config` in annotations files of downward API volumes."""

import re
from collections.abc import Iterator

ANNOTATION = "getambassador.io/config"

_LINE = re.compile(r'([A-Za-z0-9][\w./-]*)=(".*)', re.A)
_GO_TOKEN = re.compile(
    r'([^"\\\n]+)|\\(?:([abfnrtv\\"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U(00[01][0-9a-fA-F]{5}))'
)
_GO_ESCAPES = dict(zip('abfnrtv\\"', b'\a\b\f\n\r\t\v\\"', strict=True))


def is_annotations_file(text: str) -> bool:
    """Whether every line is `key="value"`, as in a downward API volume with `fieldPath: metadata.annotations`."""
    if not _LINE.match(text.lstrip("\n")):
        return False
    return all(not line or _LINE.match(line) for line in text.split("\n"))


def quoted_annotations(text: str) -> Iterator[tuple[int, str]]:
    """Line and quoted value of each annotation `getambassador.io/config` in an annotations file; see `go_unquote`."""
    for number, line in enumerate(text.split("\n"), 1):
        match = _LINE.match(line)
        if match is not None and match[1] == ANNOTATION:
            yield number, match[2]


def go_unquote(literal: str) -> str:
    """The value of a Go string literal in double quotes, as %q writes it.

    Raises:
        ValueError: not such a literal, or not UTF-8.
    """
    out, position, end = bytearray(), 1, len(literal) - 1
    if end < 1 or literal[0] != '"' or literal[end] != '"':
        raise ValueError("not in double quotes")
    while position < end:
        match = _GO_TOKEN.match(literal, position, end)
        if match is None:
            raise ValueError(f"bad escape at {position}")
        plain, short, byte, octal, *runes = match.groups()
        if plain:
            out += plain.encode()
        elif short:
            out.append(_GO_ESCAPES[short])
        elif byte or octal:
            out.append(int(byte or octal, 16 if byte else 8))
        else:
            out += chr(int(runes[0] or runes[1], 16)).encode()
        position = match.end()
    return out.decode()
