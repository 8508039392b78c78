"""YAML texts -> JSON values: PyYAML's safe loader behind limits, with Go's scalars and with errors in plain words.

A text that could crash the loader, or keep it busy for minutes, is refused before it is parsed.
"""

import re
from sys import intern
from typing import Any, NamedTuple, NoReturn

import yaml

from canary_mw.config.yaml.scalars import (
    BOOLEAN,
    BOOLEANS,
    MAX_DIGITS,
    NUMBER,
    TEXT,
    WORD,
    OddKey,
    PlainWord,
    read_number,
    tag_of,
)
from canary_mw.config.yaml.stream import BREAK

try:
    from yaml import CSafeLoader as _SafeLoader
except ImportError:  # pragma: no cover - PyYAML built without libyaml
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

MAX_BYTES = 1 << 20
MAX_DEPTH = 50
MAX_ALIASES = 64
MAX_COPIES = 10_000
MAX_DIRECTIVES = 16

_MISSING_NEWLINE = re.compile(r"\s*(?:- +)*([\w.-]+):\s+\S[^#]*?\s([A-Za-z_][\w.-]*):(?=\s|$)")
# Below 16 columns of indentation there are at most 32 levels of block collections, and 8 opening brackets make at most
# 16 levels of flow collections: together less than MAX_DEPTH.
_DEEP_LINE = re.compile(r"^[ \t?:-]{16}", re.M)
_FEW_BRACKETS = 8


class RawDiagnostic(NamedTuple):
    """A Diagnostic before its file is known; lines count from the start of the text it was found in.

    Attributes:
        other: a second line; its number is appended to the message.
    """

    code: str
    message: str
    line: int
    other: int | None = None
    hint: str | None = None
    mapping: str | None = None


class DocumentRefused(Exception):
    """A document cannot be read; `diagnostic` gives the reason."""

    def __init__(
        self, code: str, message: str, line: int, *, other: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.diagnostic = RawDiagnostic(code, message, line, other, hint)


def line_of(marked: yaml.Node | yaml.Event) -> int:
    return marked.start_mark.line + 1 if marked.start_mark else 1


class _Loader(_SafeLoader):
    """PyYAML's safe loader, limited to JSON types, so that a name `2020-01-01` stays a text."""

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: Any) -> Any:
        """The tag of a node without one; `implicit` begins with whether it is a scalar without quotes."""
        if kind is yaml.ScalarNode:
            return tag_of(value or "") if implicit[0] else TEXT
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


def _construct_map(loader: _Loader, node: yaml.Node) -> dict[Any, Any]:
    if not isinstance(node, yaml.MappingNode):
        _construct_unknown(loader, node)
    result: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if key_node.value == "<<" and not key_node.style:
            hint = "write the attributes out"
            raise DocumentRefused("merge-key", "the merge key `<<` is not supported", line, hint=hint)
        if not isinstance(key_node, yaml.ScalarNode):
            raise DocumentRefused("bad-key", "a list or map cannot name an attribute", line)
        # Interning saves memory: ten thousand documents have the same few names.
        key = loader.construct_object(key_node, deep=True)
        key = intern(str(key)) if isinstance(key, str) else OddKey(key_node.value)
        if key in result:
            first = next(line_of(other) for other, _ in node.value if other.value == key_node.value)
            message = f"`{key_node.value:.60}` is written twice, first on line"
            raise DocumentRefused("duplicate-key", message, line, other=first, hint="keep one of them")
        result[key] = loader.construct_object(value_node, deep=True)
    return result


def _construct_number(_: _Loader, node: yaml.Node) -> int | float:
    number = None
    if isinstance(node, yaml.ScalarNode) and len(node.value) <= MAX_DIGITS:
        number = read_number(node.value)
    if number is None or (node.tag.endswith(":int") and not isinstance(number, int)):
        hint = "put it in quotes if it is a text"
        text = f"{_as_written(node)} cannot be read as a number"
        raise DocumentRefused("bad-number", text, line_of(node), hint=hint)
    return number


def _construct_boolean(_: _Loader, node: yaml.Node) -> bool:
    value = BOOLEANS.get(node.value) if isinstance(node, yaml.ScalarNode) else None
    if value is None:
        text = f"{_as_written(node)} does not fit its tag `!!bool`"
        raise DocumentRefused("yaml-syntax", text, line_of(node), hint="write true or false, without a tag")
    return value


def _construct_word(loader: _Loader, node: yaml.Node) -> PlainWord:
    return PlainWord(loader.construct_yaml_str(node))


def _as_written(node: yaml.Node) -> str:
    return f"`{node.value:.40}`" if isinstance(node, yaml.ScalarNode) else "a list or map"


# Tags of YAML for values that JSON does not have -> what to write.
_INSTEAD = {
    "!!binary": "write the text itself, without a tag",
    "!!omap": "write a map, without a tag",
    "!!pairs": "write a map, without a tag",
    "!!set": "write a list, without a tag",
    "!!timestamp": "write the date as a text, without a tag",
}


def _construct_unknown(_: _Loader, node: yaml.Node) -> NoReturn:
    tag = node.tag.replace("tag:yaml.org,2002:", "!!")
    hint = _INSTEAD.get(tag, "remove it")
    raise DocumentRefused("bad-tag", f"the tag `{tag:.60}` is not allowed here", line_of(node), hint=hint)


def _json_only() -> None:
    tag = "tag:yaml.org,2002:"
    kept: dict[str | None, Any] = {
        tag + name: _SafeLoader.yaml_constructors[tag + name] for name in ("null", "str", "seq")
    }
    scalars = {tag + "int": _construct_number, NUMBER: _construct_number, BOOLEAN: _construct_boolean}
    words = {WORD: _construct_word, tag + "map": _construct_map, None: _construct_unknown}
    _Loader.yaml_constructors = kept | scalars | words


_json_only()


def is_too_large(text: str) -> bool:
    """Whether a text has more than `MAX_BYTES`."""
    return len(text) > MAX_BYTES // 4 and len(text.encode(errors="replace")) > MAX_BYTES


def load(text: str) -> tuple[yaml.Node, Any] | None:
    """Node and value of a text that is one YAML document, None if it has no content.

    400,000 nested lists crash the C loader. A text that may reach a limit is therefore first parsed as events, which
    needs no recursion.

    Raises:
        DocumentRefused: not YAML, or over a limit.
    """
    if is_too_large(text):
        raise DocumentRefused(
            "too-large", f"a document of more than {MAX_BYTES} bytes", 1, hint="split it at `---` lines"
        )
    if text.count("%TAG") > MAX_DIRECTIVES:
        raise DocumentRefused("bad-tag", "`%TAG` lines are not allowed here", 1, hint="remove them")
    try:
        if "&" in text or text.count("[") + text.count("{") > _FEW_BRACKETS or _DEEP_LINE.search(text):
            _check_limits(text)
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else (node, loader.construct_object(node, deep=True))
    except yaml.YAMLError as error:
        raise _explain(error, text) from error
    except UnicodeEncodeError as error:
        raise DocumentRefused("yaml-syntax", "the text is not UTF-8", text.count("\n", 0, error.start) + 1) from error
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        raise DocumentRefused("yaml-syntax", "a value does not fit its tag", 1) from error


class _Collection(NamedTuple):
    """A list or map, as far as it is parsed: it has at least `size` nodes and `height` levels."""

    anchor: str | None
    size: int = 1
    height: int = 1


def _check_limits(text: str) -> None:
    """Check depth, number of aliases, and number of nodes that aliases repeat, from parser events alone.

    Raises:
        DocumentRefused: over a limit, or a recursive alias.
    """
    stack = [_Collection(None)]
    anchors: dict[str | None, _Collection] = {}
    aliases = copies = 0
    for event in yaml.parse(text, Loader=_Loader):
        inner = None
        line = line_of(event)
        if isinstance(event, yaml.CollectionStartEvent):
            stack.append(_Collection(event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            inner = stack.pop()
        elif isinstance(event, yaml.AliasEvent):
            if any(frame.anchor == event.anchor for frame in stack):
                raise DocumentRefused("yaml-syntax", f"`*{event.anchor:.60}` stands inside of what it names", line)
            inner = anchors.get(event.anchor, _Collection(None))._replace(anchor=None)
            aliases, copies = aliases + 1, copies + inner.size
        elif isinstance(event, yaml.ScalarEvent):
            inner = _Collection(event.anchor, height=0)
        if inner is not None:
            if inner.anchor is not None:
                anchors[inner.anchor] = inner
            outer = stack[-1]
            height = max(outer.height, inner.height + 1)
            stack[-1] = outer._replace(size=outer.size + inner.size, height=height)
        if len(stack) - 1 + (inner.height if inner else 0) > MAX_DEPTH:
            raise DocumentRefused("too-deep", f"lists and maps nested deeper than {MAX_DEPTH} levels", line)
        if aliases > MAX_ALIASES or copies > MAX_COPIES:
            hint = "write the values out"
            raise DocumentRefused(
                "too-many-aliases", f"more than {MAX_ALIASES} aliases or copies by them", line, hint=hint
            )


# Text in an error of either PyYAML loader -> message, hint; the opening line is appended to a message ending in "line".
_WORDING = (
    ("mapping values", "a `key:` stands where none can", "check the indentation of this line and the one above"),
    ("expected ':'", "this line is not `key: value`", "write one `key: value` to a line"),
    ("scanning an alias", "a value begins with `*`", 'put it in quotes: "*"'),
    ("scanning an anchor", "a value begins with `&`", "put it in quotes"),
    ("undefined alias", "`*` names an anchor that is not there", "put the value in quotes if `*` belongs to it"),
    ("duplicate anchor", "an anchor is set twice", "write the values out"),
    ("single document", "a second document begins on this line", "let `---` stand on a line of its own"),
    ("tab character", "a tab is used for indentation", "use blanks"),
    ("cannot start any token", "a value begins with a character that must be quoted", "use blanks for tabs, or quotes"),
    ("quoted scalar", "a quoted text is wrong or has no end; it begins on line", "check quotes and backslashes in it"),
    ("flow sequence", "a list has no `]`; it begins on line", "close it, or check its commas"),
    ("flow mapping", "a map has no `}`; it begins on line", "close it, or check its commas"),
    ("tag", "a tag is wrong", "put the value in quotes if `!` belongs to it"),
    ("expected key", "this line does not fit the map around it", "check its indentation and quotes"),
    ("block end", "this line does not fit what is around it", "check its indentation and quotes"),
    ("'-' indicator", "this line does not fit the list around it", "check its indentation"),
    ("sequence entries", "a `-` stands where no list can begin", "begin the list on the next line"),
    ("", "this is not YAML", "check indentation and quotes"),
)


def _explain(error: yaml.YAMLError, text: str) -> DocumentRefused:
    """A PyYAML error in plain words; first of all a missing newline between two attributes is looked for."""
    if not isinstance(error, yaml.MarkedYAMLError):
        before = text.encode(errors="replace")[: getattr(error, "position", 0)]
        line = before.count(b"\n") + 1
        return DocumentRefused("yaml-syntax", "a control character", line, hint="remove it")
    mark = error.problem_mark or error.context_mark
    number = mark.line + 1 if mark else 1
    lines = BREAK.split(text)
    joined = _MISSING_NEWLINE.match(lines[number - 1]) if number <= len(lines) else None
    if joined:
        hint = f"`{joined[2]}:` belongs on a line of its own"
        return DocumentRefused(
            "yaml-syntax", f"two attributes on one line: `{joined[1]}:` and `{joined[2]}:`", number, hint=hint
        )
    problem = f"{error.context} {error.problem}"
    message, hint = next((plain, hint) for words, plain, hint in _WORDING if words in problem)
    other = error.context_mark.line + 1 if error.context_mark and message.endswith("line") else None
    return DocumentRefused("yaml-syntax", message, number, other=other, hint=hint)
