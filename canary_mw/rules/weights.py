"""How weights divide the requests of a group (Emissary `normalize_weights_in_mappings`)."""

from collections.abc import Iterable, Sequence

from canary_mw.rules.mapping import Mapping


def total_percent(members: Iterable[Mapping]) -> int:
    """The sum of the weights; one outside 0..100 counts as 0."""
    return sum(mapping.percent or 0 for mapping in members)


def thresholds(members: Sequence[Mapping], *, ignore_single_weight: bool = True) -> list[tuple[Mapping, float]]:
    """Cumulative upper bounds in percent, weighted Mappings first.

    Unlike in Emissary, a weight outside 0..100 counts as 0, and the Mappings beside it keep their shares.

    Args:
        ignore_single_weight: a single Mapping takes all requests, whatever its weight. The same holds for the first one
            with a weight outside 0..100 if all others have weight 0.
    """
    if ignore_single_weight and (last := last_resort(members)):
        return [(mapping, 100.0 if mapping is last else 0.0) for mapping in members]
    weightless = [mapping for mapping in members if mapping.weight is None]
    ordered = [mapping for mapping in members if mapping.weight is not None]
    total, bounds = 0, []
    for mapping in ordered:
        total += mapping.percent or 0
        bounds.append(min(total, 100))
    over = total > 100
    each = round((100 - total) / len(weightless)) if weightless else 0
    for mapping in weightless:
        total = 100 if mapping is weightless[-1] else total + each
        # Above 100 the weightless ones get nothing.
        bounds.append(0 if over else total)
    return [(mapping, float(bound)) for mapping, bound in zip([*ordered, *weightless], bounds, strict=True)]


def rescaled(members: Sequence[Mapping]) -> list[tuple[Mapping, float]]:
    """The bounds of `thresholds` for Mappings that together take all requests; without any weight, in equal parts."""
    bounds = thresholds(members)
    total = max((bound for _, bound in bounds), default=0.0)
    if not total:
        return [(mapping, 100 * number / len(members)) for number, mapping in enumerate(members, 1)]
    return [(mapping, min(bound * 100 / total, 100.0)) for mapping, bound in bounds]


def thresholds_without(members: list[Mapping], held: list[Mapping], *, middleware: bool) -> list[tuple[Mapping, float]]:
    """The bounds of a group whose gray Mappings are held back.

    The others divide all. In a middleware the app keeps what their weights leave. Where every Mapping is held back,
    because a release calls the stable one gray too, the first that takes requests by its weight goes on to do so.
    """
    rest = [each for each in members if each not in held]
    if not rest:
        rest = [each for each in members if each.weight is None or each.percent][:1]
    bounds = thresholds(rest, ignore_single_weight=False) if middleware else rescaled(rest) if rest else []
    return [*bounds, *((each, 0.0) for each in members if each not in rest)]


def last_resort(members: Sequence[Mapping]) -> Mapping | None:
    """The Mapping that takes all requests whatever its weight, because no other one has a share."""
    if len(members) == 1:
        return members[0]
    if any(mapping.weight is None or mapping.percent for mapping in members):
        return None
    return next((mapping for mapping in members if mapping.wrong_weight), None)
