"""The templates of the pages, and what they can call.

All that a template prints is escaped, and characters that change how text is shown become visible, also where a
template forgets to ask for it.
"""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from canary_mw.admin.pages import bars, hostile, wording
from canary_mw.admin.pages.static_files import hashed_name

# Sign and tone of each state of a release.
STATES = {
    "worse": ("triangle", "bad"),
    "slower": ("diamond", "warn"),
    "split_off": ("diamond", "warn"),
    "better": ("check", "good"),
    "same": ("check", "good"),
    "not_enough": ("clock", ""),
    "off": ("minus", ""),
}
# Sign and tone of each state of a rule and of each severity of a finding.
SIGNS = {
    "last_good": ("triangle", "bad"),
    "never_reached": ("diamond", "warn"),
    "ignored": ("minus", ""),
    "error": ("triangle", "bad"),
    "warning": ("diamond", "warn"),
    "notice": ("diamond", "warn"),
}


class _Environment(Environment):
    """`a.copy` of a dict is its item of this name, where it has one."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """An item of a dict, else an attribute."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


@cache
def environment() -> Environment:
    """The environment of all templates."""
    made = _Environment(
        loader=PackageLoader("canary_mw.admin"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=hostile.visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "pieces": hostile.pieces,
        "count": wording.count,
        "rate": wording.rate,
        "share": wording.share,
        "percent": wording.percent,
        "weight": wording.weight,
        "milliseconds": wording.milliseconds,
        "time_parts": wording.time_parts,
        "size": wording.size,
        "clock": wording.clock,
        "ago": wording.ago,
        "release_path": wording.release_path,
        "typed": hostile.Typed,
        "without": wording.without,
    }
    made.globals |= {
        "static": hashed_name,
        "plural": wording.plural,
        "split_parts": bars.split_parts,
        "split_bar": bars.split_bar,
        "length_bar": bars.length,
        "STATES": STATES,
        "SIGNS": SIGNS,
        "WINDOWS": wording.WINDOWS,
        "WINDOW_LINKS": wording.WINDOW_LINKS,
    }
    return made
