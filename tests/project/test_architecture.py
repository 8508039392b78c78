"""docs/architecture.md and CONTRIBUTING.md name what is there."""

import re
import runpy
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "canary_mw"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
WITHOUT_LIST = re.sub(r"(?s)<!-- modules -->.*<!-- end of modules -->", "", PAGE)
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# `routing/decision.py` (`decide`, `remainder_bounds`)
MODULE = re.compile(r"`((?:\w+/)*\w+)\.py`(?:\s+\(((?:`[\w.]+`(?:, )?)+)\))?")


def named(text: str) -> list[tuple[str, str]]:
    """(module, name in it or "") of everything that a page points to in the package."""
    found = []
    for module, names in MODULE.findall(text):
        if not module.startswith(("tests/", "scripts/", "canary_mw/")):
            found += [(module, name) for name in re.findall(r"[\w.]+", names) or [""]]
    return found


def test_the_pages_point_to_something() -> None:
    assert len(named(WITHOUT_LIST)) > 50
    assert len(named(GUIDE)) > 5


@pytest.mark.parametrize(("module", "name"), sorted({*named(WITHOUT_LIST), *named(GUIDE)}))
def test_what_a_page_points_to_is_there(module: str, name: str) -> None:
    found: object = import_module("canary_mw." + module.replace("/", "."))
    for part in filter(None, name.split(".")):
        assert hasattr(found, part) or part in getattr(found, "__annotations__", ()) or part in _set_by(found), name
        found = getattr(found, part, None)


def _set_by(cls: object) -> set[str]:
    """Attributes that a class sets in its methods."""
    codes = [getattr(method, "__code__", None) for method in vars(cls).values()] if isinstance(cls, type) else []
    return {name for code in codes if code is not None for name in code.co_names}


def test_the_table_of_rooms_is_the_list_of_folders() -> None:
    table = PAGE.partition("| room | what is in it |")[2].partition("\n\n")[0]
    rooms = re.findall(r"(?m)^\| `(\w+)` \|", table)
    assert sorted(rooms) == sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    diagram = PAGE.partition("```mermaid")[2].partition("```")[0]
    assert [word for word in re.findall(r"\w+", diagram) if word in rooms and word != "control"] == [
        room for room in rooms if room != "control"
    ]


def test_the_list_of_modules_is_that_of_the_package() -> None:
    with_list = runpy.run_path(str(ROOT / "scripts" / "module_list.py"))["with_list"]
    assert with_list(PAGE) == PAGE, "write it anew: .venv/bin/python scripts/module_list.py"


def test_the_examples_of_style_are_quoted_from_the_code() -> None:
    modules = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")]
    examples = re.findall(r"(?s)```python\n(.*?)```", GUIDE)
    assert len(examples) == 2
    assert [example for example in examples if not any(example in text for text in modules)] == []
