"""Reads the HTML of a page as a program does."""

from html.parser import HTMLParser

from canary_mw.admin.pages.frame import Look

LOOK = Look("", "", "/ambassador/v0/diag/events?page=overview", "auto")
VOID = {"meta", "link", "input", "br"}


class Reader(HTMLParser):
    """Checks that elements are closed in order, and collects them with their attributes and texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        # What somebody typed goes back as it was.
        if self.open[-1:] != ["textarea"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def labels(self, tag: str) -> list[str]:
        return [
            attributes["aria-label"] for name, attributes in self.elements if name == tag if "aria-label" in attributes
        ]
