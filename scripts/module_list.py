"""Write the list of modules in docs/architecture.md anew: each with the first sentence of its docstring.

.venv/bin/python scripts/module_list.py
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "canary_mw"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules -->\n", "<!-- end of modules -->\n"


def first_sentence(path: Path) -> str:
    """What a module says about itself: its docstring up to the first full stop, colon or empty line."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].rstrip(".")


def module_list() -> str:
    """A table for each folder of the package, in the order of their names."""
    folders = sorted({path.parent for path in PACKAGE.rglob("*.py")})
    return "\n".join(_table(folder) for folder in folders)


def _table(folder: Path) -> str:
    title = folder.relative_to(PACKAGE.parent).as_posix()
    modules = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
    rows = "".join(f"| `{path.stem}` | {first_sentence(path)} |\n" for path in modules)
    return f"**{title}**\n\n| module | what it holds |\n|---|---|\n{rows}" if rows else ""


def with_list(page: str) -> str:
    """The page with the list of today between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{module_list()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_list(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
