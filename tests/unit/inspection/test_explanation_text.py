"""Explanations as text."""

from rules import get, header, mapping, table

from canary_mw.inspection.explanation import explain
from canary_mw.inspection.explanation_text import explanation_lines

TABLE = table(mapping("a"), mapping("b", weight=20), mapping("c", conditions=header("gray", "true")))


def test_an_explanation_is_plain_text() -> None:
    lines = explanation_lines(explain(TABLE, get("/svc/x?y", [("host", "shop")])))
    assert lines == [
        "20 %  gray    b  -> b",
        "              GET /x?y  host: shop  timeout: 3 s",
        "80 %  stable  a  -> a",
        "              GET /x?y  host: shop  timeout: 3 s",
        "",
        "groups, in the order of routing:",
        "  - c: not: header gray = true",
        "  + a + b: prefix /svc/",
    ]


def test_a_terminal_may_style_what_a_piece_says() -> None:
    lines = explanation_lines(explain(TABLE, get()), lambda text, role: f"<{role}>{text}")
    assert lines[0].startswith("20 %  <gray>gray    b")
    assert lines[2].startswith("80 %  <stable>stable  a")
    assert [line for line in lines if "matched>" in line] == [
        "  <not matched>- c: not: header gray = true",
        "  <matched>+ a + b: prefix /svc/",
    ]
