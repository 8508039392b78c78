"""Targets that evaluate what an operator wrote against what a client sent: header values and rewrites."""

from canary_mw.exceptions import MappingError
from canary_mw.http.messages import RequestHead, ResponseHead
from canary_mw.rules.header_templates import HeaderTemplate, TemplateContext, compile_template
from canary_mw.rules.mapping import RegexRewrite
from canary_mw.rules.matchers import REGEX_MAX_SIZE, compile_regex


def header_values(data: bytes) -> None:
    """The value of an added header as an operator writes it: a `MappingError`, or a value that ends no line."""
    text, _, given = data.decode("utf-8", "replace").partition("\n")
    try:
        value = compile_template(text)
    except MappingError:
        return
    head = RequestHead("GET", "/p?q", {"host": "h:1", "x-given": given})
    for response in (None, ResponseHead(200, [(b"x-given", given.encode())])):
        rendered = value.render(TemplateContext(head, response, 1.7e9)) if isinstance(value, HeaderTemplate) else value
        assert not {*rendered} & {*b"\r\n\0"}
        assert len(rendered) <= 64 * (len(text) + 1) * (len(given) + 64)


def regex_rewrites(data: bytes) -> None:
    """A pattern, a substitution and a text, a line each: a `MappingError`, or a rewritten text of a bounded size."""
    lines = [*data.split(b"\n"), b"", b""]
    pattern, substitution, text = lines[0].decode("utf-8", "replace"), lines[1], lines[2]
    try:
        compiled = compile_regex(pattern, max_size=REGEX_MAX_SIZE)
    except MappingError:
        return
    rewrite = RegexRewrite(compiled, substitution)
    new = rewrite.apply(text)
    assert new or not text
    assert len(new) <= len(text) + (len(text) + 1) * (len(substitution) * (len(text) + 1) + 1)
    if not rewrite.usable:
        assert new == text
