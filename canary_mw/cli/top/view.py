"""What `canary-mw top` shows: lines of an answer of the API, as wide as the terminal."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from canary_mw.cli.terminal import fitted, visible, width
from canary_mw.rollout.formatting import duration, share

Role = Literal["", "dim", "bold", "stable", "gray", "bad", "warn", "good"]
Sort = Literal["urgency", "name", "requests"]
SORTS: tuple[Sort, ...] = ("urgency", "name", "requests")

# Sign, word and role of each state.
STATES: dict[str, tuple[str, str, Role]] = {
    "worse": ("▲", "worse", "bad"),
    "slower": ("◆", "slower", "warn"),
    "split_off": ("◆", "split off", "warn"),
    "not_enough": ("◷", "not enough yet", "dim"),
    "same": ("✓", "no difference", "good"),
    "better": ("✓", "better", "good"),
    "off": ("⊖", "off", "dim"),
}
# Sign and role of each phase.
PHASES: dict[str, tuple[str, Role]] = {
    "Manual": ("–", "dim"),
    "Pending": ("◷", "dim"),
    "Progressing": ("◌", "good"),
    "Paused": ("‖", "warn"),
    "Held": ("◆", "warn"),
    "Baking": ("◌", "good"),
    "Completed": ("✔", "good"),
    "RolledBack": ("✖", "bad"),
    "Aborted": ("✖", "bad"),
}
WINDOWS = {"1m": "1 min", "5m": "5 min", "15m": "15 min", "1h": "1 h"}
# Columns besides the release: state, gray, requests, errors, p95; the interval is left out of narrow terminals.
_STATE, _GRAY, _RPS, _ERRORS, _INTERVAL, _P95 = 16, 11, 8, 11, 22, 9
_NARROW = 100
_TITLE = len("canary-mw top  ")
_STABLE = "stable"


class Piece(NamedTuple):
    """A piece of a line, and what it is."""

    text: str
    role: Role = ""


Line = list[Piece]


class Wanted(NamedTuple):
    """What is to be shown.

    Attributes:
        find: a part of the name or match of releases.
        chosen: the place of the release whose sentence is shown; the first one by default.
    """

    columns: int = 80
    sort: Sort = "urgency"
    find: str = ""
    chosen: int = 0


def releases_in(overview: Any, wanted: Wanted) -> list[Any]:
    """The releases that are shown, in their order."""
    part = wanted.find.casefold()
    found = [each for each in overview["releases"] if part in f"{each['name']} {_match(each)}".casefold()]
    if wanted.sort == "name":
        return sorted(found, key=lambda each: str(each["name"]))
    if wanted.sort == "requests":
        return sorted(found, key=lambda each: -int(each["requests"]))
    return found


def view(overview: Any, wanted: Wanted) -> list[Line]:
    """All lines."""
    found = releases_in(overview, wanted)
    lines = [_title(overview, wanted), [], _head(wanted), [Piece("─" * wanted.columns, "dim")]]
    for place, release in enumerate(found):
        lines += _rows(release, wanted, chosen=place == wanted.chosen and len(found) > 1)
    if not found:
        lines.append(
            [Piece(str(overview["finding"]) if not wanted.find else "No release has this in its name.", "dim")]
        )
    if wanted.chosen < len(found):
        lines += [[], *_sentence(found[wanted.chosen], wanted.columns)]
    return lines


def _title(overview: Any, wanted: Wanted) -> Line:
    scope, rules = overview["scope"], overview["rules"]
    parts = [
        visible(scope["pod"]),
        f"{scope['workers']} {'worker' if scope['workers'] == 1 else 'workers'}",
        f"rules {rules['generation']} live on {rules['workers_on_it']} of {scope['workers']}",
        f"{overview['totals']['rps']:.4g} req/s",
        f"last {WINDOWS[overview['window']['name']]}",
    ]
    if width(" · ".join(parts)) > wanted.columns - _TITLE:
        # The name of the pod is what may be cut.
        parts = [*parts[1:], parts[0]]
    text = " · ".join(parts)
    return [Piece("canary-mw top", "bold"), Piece("  " + _cut(text, wanted.columns - _TITLE), "dim")]


def _cut(text: str, columns: int) -> str:
    return text if width(text) <= columns else fitted(text, max(columns, 1))


def _name_columns(wanted: Wanted) -> int:
    taken = _STATE + _GRAY + _RPS + _ERRORS + _P95 + (_INTERVAL + 3 if wanted.columns >= _NARROW else 0)
    return max(wanted.columns - taken - 1, 10)


def _row(cells: Sequence[Piece], interval: Line, wanted: Wanted) -> Line:
    """A line of the table: name, state, gray, requests, errors and p95."""
    name, state, gray, rps, errors, p95 = cells
    line = [
        Piece(fitted(name.text, _name_columns(wanted)), name.role),
        Piece(" " + fitted(state.text, _STATE), state.role),
        Piece(fitted(gray.text, _GRAY, right=True), gray.role),
        Piece(fitted(rps.text, _RPS, right=True), rps.role),
        Piece(fitted(errors.text, _ERRORS, right=True), errors.role),
    ]
    if wanted.columns >= _NARROW:
        line += [Piece("   "), *interval]
    return [*line, Piece(fitted(p95.text, _P95, right=True), p95.role)]


def _head(wanted: Wanted) -> Line:
    names = ("Release", "State", "Gray", "req/s", "Errors", "p95")
    return _row([Piece(each, "dim") for each in names], [Piece(fitted("95 % interval", _INTERVAL), "dim")], wanted)


def _match(release: Any) -> str:
    return f"{release['match']['host'] or '*'} {release['match']['prefix']}"


def _rows(release: Any, wanted: Wanted, *, chosen: bool) -> Iterator[Line]:
    """A line for stable, and one for each gray variant."""
    grays = [name for name in release["variants"] if name != _STABLE]
    weight = sum(release["weights"].get(name, 0.0) for name in grays)
    mark = "› " if chosen else "  "
    most = max((_high(each) for each in release["variants"].values()), default=0.0) or 1.0
    sign, word, role = STATES[release["verdict"]["state"]]
    first = [Piece(mark + visible(release["name"]), "bold"), Piece(f"{sign} {word}", role), Piece(share(weight))]
    yield _figures(first, release["variants"].get(_STABLE), "stable", most, wanted)
    for number, name in enumerate(grays):
        seen = release["seen"].get(name)
        shown = "–" if seen is None else f"{seen:.1f} seen"
        place = _match(release) if number == 0 else ""
        text = "  " + visible(place if len(grays) == 1 else f"{place} {name}".strip())
        state = _own_state(release, name) if len(grays) > 1 else _phase(release)
        yield _figures([Piece(text), state, Piece(shown, "dim")], release["variants"][name], "gray", most, wanted)


def _own_state(release: Any, name: str) -> Piece:
    sign, word, role = STATES[release["verdicts"][name]["state"]]
    return Piece(f"{sign} {word}", role)


def _phase(release: Any) -> Piece:
    """How far a release with steps is."""
    phase = release["rollout"]["phase"] if release["rollout"] else "Manual"
    sign, role = PHASES.get(phase, ("?", ""))
    return Piece("") if phase == "Manual" else Piece(f"{sign} {phase}", role)


def _high(figures: Any) -> float:
    return float(figures["error_rate"]["high"] or 0.0)


def _figures(first: list[Piece], figures: Any, role: Role, most: float, wanted: Wanted) -> Line:
    if figures is None:
        return _row([*first, Piece("–"), Piece("–"), Piece("–")], _interval(None, None, role, most), wanted)
    rate, slow = figures["error_rate"], figures["p95_ms"]["value"]
    errors = "–" if rate["value"] is None else f"{100 * rate['value']:.2f} %" if figures["errors"] else _none(figures)
    p95 = "–" if slow is None else duration(slow / 1000)
    cells = [*first, Piece(f"{figures['rps']:.4g}"), Piece(errors, role), Piece(p95, role)]
    return _row(cells, _interval(rate["low"], rate["high"], role, most), wanted)


def _none(figures: Any) -> str:
    """No errors: among few requests that says little."""
    return f"0 of {figures['requests']}" if figures["requests"] < 1000 else "0 %"


def _interval(low: float | None, high: float | None, role: Role, most: float) -> Line:
    """Where the rate of errors lies, on a scale that all variants of the release share."""
    if low is None or high is None:
        return [Piece("·" * _INTERVAL, "dim")]
    begin = min(int(low / most * _INTERVAL), _INTERVAL - 1)
    end = max(min(-(-high / most * _INTERVAL // 1), _INTERVAL), begin + 1)
    size = int(end) - begin
    bar = ("━" if role == "stable" else "╍") * size
    return [Piece("·" * begin, "dim"), Piece(bar, role), Piece("·" * (_INTERVAL - begin - size), "dim")]


def _sentence(release: Any, columns: int) -> Iterator[Line]:
    sign, _, role = STATES[release["verdict"]["state"]]
    text = f"{visible(release['name'])}: {visible(release['verdict']['sentence'])}"
    for number, line in enumerate(_wrapped(text, columns - 2)):
        yield [Piece(f"{sign if number == 0 else ' '} {line}", role)]
    if release["verdict"]["what_to_do"]:
        for line in _wrapped(f"What to do: {visible(release['verdict']['what_to_do'])}", columns - 2):
            yield [Piece(f"  {line}", "dim")]


def _wrapped(text: str, columns: int) -> Iterator[str]:
    """A text in lines, broken at blanks where there are some."""
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if width(longer) > columns and line:
            yield line
            longer = word
        line = longer if width(longer) <= columns else fitted(longer, columns)
    yield line


def plain(lines: Sequence[Line]) -> str:
    """The lines without colours."""
    return "\n".join("".join(piece.text for piece in line).rstrip() for line in lines)
