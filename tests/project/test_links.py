"""Links of the documentation to files and headings of this repository lead somewhere."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
from installation import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "README.zh-CN.md",
    ROOT / "SECURITY.md",
    ROOT / "CHANGELOG.md",
    ROOT / "k8s" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]: *(\S+)|(?:href|src)=\"([^\"]+)\"", re.MULTILINE)
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
NAMED = re.compile(r"<a (?:name|id)=\"([^\"]+)\"")


def links(text: str) -> Iterator[str]:
    """The targets in a page that are not addresses elsewhere."""
    for found in LINK.finditer(CODE.sub("", text)):
        target = next(each for each in found.groups() if each)
        if not re.match(r"[a-z][a-z0-9+.-]*:|//", target):
            yield target


def anchor(heading: str) -> str:
    """The name that GitHub gives to a heading."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")


@cache
def anchors(page: Path) -> frozenset[str]:
    """All that a link may name in a page; a heading that stands there again gets a number."""
    text = page.read_text(encoding="utf-8")
    found: Counter[str] = Counter()
    names = set(NAMED.findall(text))
    for heading in HEADING.findall(re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
        name = anchor(heading)
        names.add(f"{name}-{found[name]}" if found[name] else name)
        found[name] += 1
    return frozenset(names)


def leads_somewhere(page: Path, target: str) -> bool:
    place, _, name = target.partition("#")
    path = (page.parent / unquote(place)) if place else page
    if not path.exists() or not path.resolve().is_relative_to(ROOT):
        return False
    return not name or (path.suffix == ".md" and unquote(name) in anchors(path))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    assert [target for target in links(page.read_text(encoding="utf-8")) if not leads_somewhere(page, target)] == []


def test_a_link_without_a_target_is_found(tmp_path: Path) -> None:
    text = "# One `two` & three\n[a](#one-two--three) [b](none.md) [c](#four)\n[d]: gone.md\n`[e](x)` [f](https://g)\n"
    assert list(links(text)) == ["#one-two--three", "none.md", "#four", "gone.md"]
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    assert anchors(page) == {"one-two--three"}


def test_links_are_there_at_all() -> None:
    assert sum(len(list(links(page.read_text(encoding="utf-8")))) for page in PAGES) > 10


def test_every_page_stands_in_the_index_of_the_docs() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {target.partition("#")[0] for target in links(index.read_text(encoding="utf-8"))}
    assert [page.name for page in (ROOT / "docs").glob("*.md") if page != index and page.name not in linked] == []
