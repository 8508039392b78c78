"""Targets that read rules: what an operator, or a file cut off in the middle, may hand us."""

import json
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from canary_mw.config.annotations import ANNOTATION, go_unquote
from canary_mw.config.document import Diagnostic, Document
from canary_mw.config.parser import RuleSet, parse
from canary_mw.config.reader import Reading, read
from canary_mw.config.yaml import loader
from canary_mw.control.sources.file import FileSource
from canary_mw.exceptions import ClientError, ConfigError, UpstreamProtocolError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import RequestHead
from canary_mw.http.request_writer import encode_head
from canary_mw.inspection.explanation import explain
from canary_mw.inspection.explanation_json import diagnostic_json, explanation_json
from canary_mw.inspection.lint import lint
from canary_mw.routing.table import RouteTable

from . import strict
from .heads import check_reply

_WITH_MARK = ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
# Between the rules in force and those that replace them.
NEXT = "\n=====\n"
HEADS = (
    RequestHead("GET", "/", {"host": "a.example:80"}),
    RequestHead(
        "POST", "/svc/a/b?x=1&y", [("host", "b"), ("gray", "true"), ("cookie", "a=b"), ("content-length", "3")]
    ),
    RequestHead("OPTIONS", "/svc/", {"origin": "http://a", "access-control-request-method": "PUT", "upgrade": "h2c"}),
)


def lines_in(text: str) -> int:
    """How many lines an editor shows of it."""
    return text.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1


def check_places(found: tuple[Diagnostic, ...], text: str) -> None:
    """Raise unless every finding can be shown, and leads to a line that is there."""
    last = lines_in(text)
    for each in found:
        assert str(each)
        assert json.dumps(diagnostic_json(each))
        assert each.line is None or 1 <= each.line <= last, each
        assert len(each.message) < 4096 + 4 * len(text)


def yaml(data: bytes) -> None:
    """Any text as YAML: `DocumentRefused`, or values of JSON within the limits."""
    text = data.decode("utf-8", "replace")
    try:
        loaded = loader.load(text)
    except loader.DocumentRefused as refused:
        diagnostic = refused.diagnostic
        assert diagnostic.code
        # YAML 1.1 knows three more line breaks, and the end is behind the last.
        assert 1 <= diagnostic.line <= lines_in(text) + sum(map(text.count, "\x85\u2028\u2029")) + 1
        return
    if loaded is not None:
        assert _size(loaded[1], loader.MAX_DEPTH) <= len(text) + loader.MAX_COPIES + 1


def _size(value: Any, depth: int) -> int:
    """Nodes that a walk over a value sees."""
    assert depth >= 0, "deeper than the limit"
    if isinstance(value, dict):
        assert all(isinstance(key, str | int | float | bool | None) for key in value)
        return 1 + sum(1 + _size(each, depth - 1) for each in value.values())
    if isinstance(value, list):
        return 1 + sum(_size(each, depth - 1) for each in value)
    assert isinstance(value, str | int | float | bool | None)
    return 1


def documents(data: bytes) -> None:
    """Any text of a file of rules: documents and findings, and the same from the cache."""
    text = data.decode("utf-8", "replace")
    environ = {"NAME": "value", "LINES": "a: 1\nb: 2"}
    first = read(Document(text, "rules.yaml"), environ=environ)
    check_reading(first, text)
    again = read(Document(text, "rules.yaml"), environ=environ, cache=first.cache)
    assert (again.resources, again.diagnostics) == (first.resources, first.diagnostics)


def check_reading(reading: Reading, text: str) -> None:
    """Raise unless findings and documents are in their places."""
    check_places(reading.diagnostics, text)
    assert reading.complete == (not reading.diagnostics)
    last = lines_in(text)
    for resource in reading.resources:
        assert 1 <= resource.line <= resource.last_line <= last, resource
        assert all(1 <= line <= last for line in resource.lines.values())
    assert sum(len(text) for text, _ in reading.cache) <= 64 * (len(text) + 1)


def annotations(data: bytes) -> None:
    """The annotations file of a downward-API volume, quoted as Go does, and as it is."""
    text = data[:2000].decode("utf-8", "replace")
    quoted = '"' + "".join(f"\\x{byte:02x}" for byte in text.encode()) + '"'
    assert go_unquote(quoted) == text
    for value in (f'"{text}"', text):
        with suppress(ValueError):
            assert len(go_unquote(value)) <= len(value)
    for file in (f'other="x"\n{ANNOTATION}={quoted}\n', f'{ANNOTATION}="{text}"', f"{ANNOTATION}={text}"):
        reading = read(Document(file, "annotations"))
        check_places(reading.diagnostics, file)


def source(data: bytes) -> None:
    """Any bytes as a file: an error that names the file, or the text that the bytes are."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "rules.yaml"
        file.write_bytes(data)
        (document,) = FileSource(file).load()
    if document.error is None:
        assert data in {document.text.encode(), *(f"\ufeff{document.text}".encode(codec) for codec in _WITH_MARK)}
    else:
        assert (document.text, document.error.file) == ("", str(file))
        assert 1 <= (document.error.line or 1) <= data.count(b"\n") + 1


def rules(data: bytes) -> None:
    """Any two texts, the second in place of the first, up to the requests that would be sent.

    Only findings come out of it; what the cache gives is what a fresh reading gives; a request that a Mapping makes can
    be sent, or is refused as a whole.
    """
    before, found, after = data.decode("utf-8", "replace").partition(NEXT)
    old = _parsed(before, None)
    new = _parsed(after, old) if found else old
    fresh = _parsed(after if found else before, None)
    if not [each for each in fresh.diagnostics if each.severity == "error"]:
        assert new.mappings == fresh.mappings
        assert new.diagnostics == fresh.diagnostics
    for middleware in (False, True):
        _routed(new, after if found else before, middleware=middleware)
    with suppress(ConfigError):
        RouteTable.from_yaml(before)


def _parsed(text: str, previous: RuleSet | None) -> RuleSet:
    ruleset = parse([Document(text, "rules.yaml")], previous=previous)
    check_places(ruleset.diagnostics, text)
    return ruleset


def _routed(read: RuleSet, text: str, *, middleware: bool) -> None:
    settings = read.shared.settings
    build = partial(RouteTable.build, read.mappings, middleware=middleware, settings=settings)
    table = build(local=["svc"])
    for head in HEADS:
        explanation = explain(table, head)
        assert abs(sum(candidate.percent for candidate in explanation.candidates) - 100) < 1e-6
        assert json.dumps(explanation_json(table, explanation))
        for candidate in explanation.candidates:
            if isinstance(candidate.outcome, UpstreamRequest):
                _sent(candidate.outcome)
            elif candidate.outcome is not None:
                check_reply(candidate.outcome)
    lint(table)


def _sent(request: UpstreamRequest) -> None:
    try:
        raw = encode_head(request)
    except (ClientError, UpstreamProtocolError):
        return
    message = strict.request(raw + b"abc")
    assert len(message.values(b"host")) == 1
