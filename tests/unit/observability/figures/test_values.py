"""Windows over the histories of figures."""

from canary_mw.observability.figures.values import (
    CounterHistory,
    Figures,
    History,
    ReasonKey,
    Row,
    RowKey,
    Snapshot,
    counters_in,
    window_of,
)


def test_a_window_is_the_present_minus_the_slot_at_its_beginning() -> None:
    history = History(
        Snapshot(100, 9, 3, (80, 5, 6, 9)),
        fine={940: Snapshot(40, 2, 1, (36, 1, 1, 2)), 945: Snapshot(50, 2, 1, (45, 2, 1, 2))},
    )
    window = window_of(history, 1002.0, 60)
    assert (window.seconds, window.counts[:4]) == (62.0, (60, 7, 2, (44, 4, 5, 7)))


def test_a_history_that_is_younger_than_the_window_says_how_long_it_is() -> None:
    history = History(Snapshot(10), fine={995: Snapshot(4)})
    assert window_of(history, 1000.0, 300)[0] == 5.0
    assert window_of(history, 1000.0, 300).counts.requests == 6


def test_without_a_history_nothing_is_known_of_the_past() -> None:
    assert window_of(History(Snapshot(10)), 1000.0, 60).seconds == 0.0


def test_an_hour_is_looked_up_in_the_slots_of_minutes() -> None:
    history = History(Snapshot(10), fine={9995: Snapshot(9)}, coarse={6420: Snapshot(2), 9960: Snapshot(8)})
    window = window_of(history, 10_000.0, 3600)
    assert (window.seconds, window.counts.requests) == (3580.0, 8)


def test_counters_and_rows_have_windows_of_five_minutes_at_most() -> None:
    key = RowKey("release", "gray", "svc", "gray", drawn=True)
    figures = Figures(
        now=1000.0,
        rows={key: Row(classes=(0, 0, 10, 0, 0, 0))},
        counters={("shadow", "sent"): 4, ("shadow", "late"): 7},
        counter_history=CounterHistory({940: {key: 7, ("shadow", "sent"): 4}}),
    )
    assert counters_in(figures, 60) == (60.0, {key: 3, ("shadow", "late"): 7})
    assert counters_in(Figures(), 60) == (0.0, {})


def test_reasons_are_counters_with_a_name() -> None:
    figures = Figures(counters={("assignments", "r", "v", "sticky"): 2, ("shadow", "sent"): 1})
    assert figures.reasons == {ReasonKey("r", "v", "sticky"): 2}
