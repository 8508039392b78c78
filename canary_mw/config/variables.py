"""Variables of the environment in rules: `$NAME` and `${NAME}`.

The standalone proxy puts in all variables, as Emissary does. The environment of a middleware is that of the app, with
its secrets: it puts in only those that are listed in `CANARY_MW_ENV_NAMES`, because rules can send them anywhere.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from canary_mw.config.document import Diagnostic
from canary_mw.config.yaml.stream import count_line_breaks, with_unix_line_ends

ENV_NAMES = "CANARY_MW_ENV_NAMES"
# The codes of the findings below.
VARIABLE_CODES = frozenset(("unknown-variable", "unlisted-variable"))

# As in Python's `os.path.expandvars`, which Emissary calls.
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.A)

Variable = tuple[str, int]  # name, line


def listed_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that a middleware may put into rules."""
    names = (name.strip() for name in environ.get(ENV_NAMES, "").split(","))
    return {name: environ[name] for name in names if name in environ}


def expand_variables(text: str, environ: Mapping[str, str]) -> tuple[str, list[int] | None]:
    """Replace `$NAME` and `${NAME}` by the values of `environ`; an unknown name is left as it is.

    Returns:
        The new text. If YAML counts more lines in it than there were, also the original line of each; otherwise None.
    """
    if ("$" not in text or not environ) and text.isascii():
        return text, None

    def value(match: re.Match[str]) -> str:
        return with_unix_line_ends(environ.get(match[1] or match[2], match[0]))

    lines = [_VARIABLE.sub(value, line) for line in text.split("\n")]
    origin = [number for number, line in enumerate(lines, 1) for _ in range(count_line_breaks(line) + 1)]
    return "\n".join(lines), origin if len(origin) > len(lines) else None


def variables_in(text: str) -> list[Variable]:
    """The variables that a text names outside of comment lines. A number after `$` is no name."""
    return [
        (match[1] or match[2], number)
        for number, line in enumerate(text.split("\n"), 1)
        if "$" in line and not line.lstrip().startswith("#")
        for match in _VARIABLE.finditer(line)
        if not (match[1] or match[2])[0].isdigit()
    ]


def unknown_variables(variables: Iterable[Variable], environ: Mapping[str, str], file: str) -> Iterator[Diagnostic]:
    """A notice about each variable of a file that stays as it is written."""
    hint = f"set it; a middleware puts in only the variables listed in {ENV_NAMES}"
    for name, line in _first(variables):
        if name not in environ:
            yield _notice("unknown-variable", f"no value is known for ${name}: it stays as it is", file, line, hint)


def unlisted_variables(variables: Iterable[Variable], environ: Mapping[str, str], file: str) -> Iterator[Diagnostic]:
    """A notice about each variable that is put in for this environment, but would not be put in by a middleware."""
    listed = listed_variables(environ)
    hint = f"for a middleware, list it in {ENV_NAMES} of the app, or write its value"
    for name, line in _first(variables):
        if name in environ and name not in listed:
            yield _notice("unlisted-variable", f"${name} is put in here, but not in a middleware", file, line, hint)


def _first(variables: Iterable[Variable]) -> list[Variable]:
    """The first place of each name."""
    return list(dict(reversed(list(variables))).items())[::-1]


def _notice(code: str, message: str, file: str, line: int, hint: str) -> Diagnostic:
    return Diagnostic(severity="notice", code=code, message=message, file=file, line=line, hint=hint)
