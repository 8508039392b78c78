"""Write docs/gray-release-reference.md from the model and the descriptions; `--check` reports whether it is current.

Run it after a field has changed: python scripts/gray_release_reference.py
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from mapping_reference import default_of, type_in, write

from canary_mw.config.canary.schema import GrayReleaseModel
from canary_mw.config.reference.attribute_doc import AttributeDoc
from canary_mw.config.reference.gray_release import GRAY_RELEASE_SECTIONS

PAGE = Path(__file__).parent.parent / "docs" / "gray-release-reference.md"

INTRODUCTION = """\
# GrayRelease: reference

This page is generated from the model that reads the documents: `python scripts/gray_release_reference.py`. How a
release is made, step by step, and what can go wrong: [gray-release.md](gray-release.md).

A GrayRelease decides by user, not by request, who gets the gray Mappings of a group. It stands beside the Mappings: in
the same file, annotation or ConfigMap, flat or below `spec` with the name in `metadata`.

```yaml
apiVersion: canary-mw/v1
kind: GrayRelease
name: svc-2026-11
gray: {svc-gray: 20}
sticky: [{header: x-user-id}, {cookie: uid}]
choice: {header: x-gray}
fallback: {}
```

The gray Mapping says `weight: 0`: if the release is ever unreadable, nobody is in gray. While the release is in force,
the weights of the Mappings that it names have no effect. A release in error keeps its last good version; without one
its gray Mappings get nothing. `canary-mw check` names what is wrong, `canary-mw explain` who gets what and why, and
`canary-mw assign` the variant of many keys.

A user's variant is a function of release and key: the first 64 bits of SHA-256 of salt, `:` and key, times 1,000,000,
divided by 2^64, is a slot; each variant owns a range of slots. A larger weight only adds users to a variant, a smaller
one only removes some. With three or more variants that holds as long as `check` reports no `split-collision`.

The first of these that applies decides: a canary-mw before this one sent the request here; `enabled: false`; the lane
of a trusted peer; `choice`; `never` and `always`; a drained session; `layer` and `holdout`; `audience`; the key.

`name` is required: letters, digits and `.` `_` `-`, at most 63, the first one a letter or a digit.
"""


def row(name: str, text: AttributeDoc) -> str:
    """One row of a table."""
    cells = (f"`{name}`", type_in(name, GrayReleaseModel), default_of(name, text, GrayReleaseModel), text.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in (*cells, f"`{text.example}`")) + " |"


def tables() -> Iterator[str]:
    """A table for each section."""
    for title, section in GRAY_RELEASE_SECTIONS.items():
        yield f"## {title}\n"
        yield "| field | type | default | meaning | example |\n|---|---|---|---|---|"
        yield "\n".join(row(name, text) for name, text in section.items()) + "\n"


def page() -> str:
    """The text of the page."""
    return "\n".join([INTRODUCTION, *tables()])


if __name__ == "__main__":
    sys.exit(write(PAGE, page()))
