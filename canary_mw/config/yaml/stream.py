"""A text -> its YAML documents, with one kind of line end.

Documents are separated before they are parsed, so that one with a syntax error does not affect the others.
"""

import re
from collections.abc import Iterator

_SEPARATOR = re.compile(r"^\ufeff?(?:---|\.\.\.)(?:[ \t]+#.*|[ \t]*)$", re.M)
# What is a line break in YAML 1.1: editors do not show the last three as such.
BREAK = re.compile("[\n\x85\u2028\u2029]")
_CONTENT = re.compile(r"^(?!%)[ \t]*[^\s#]", re.M)


def with_unix_line_ends(text: str) -> str:
    """The text without a byte order mark, and with a line feed for each CRLF and CR, which YAML reads as line breaks.

    It is for every text that holds documents. A file is not the only one: a value in JSON, a quoted scalar or a Go
    literal has the line ends of the editor that its documents were written with.
    """
    text = text.removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def count_line_breaks(text: str) -> int:
    """Number of line breaks in YAML 1.1."""
    return text.count("\n") if text.isascii() else len(BREAK.findall(text))


def split_documents(text: str) -> Iterator[tuple[int, str]]:
    """Documents, each with the number of lines before it; documents without content are left out."""
    begin = line = 0
    for match in _SEPARATOR.finditer(text):
        if _CONTENT.search(text, begin, match.start()):
            yield line, text[begin : match.start()]
        line += text.count("\n", begin, match.end()) + 1
        begin = match.end() + 1
    if _CONTENT.search(text, begin):
        yield line, text[begin:]
