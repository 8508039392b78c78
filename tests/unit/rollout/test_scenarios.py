"""Whole releases on a fake clock: the engine, the draw of sticky keys, and the statistics of what requests show."""

from dataclasses import replace

import pytest
from progressive import ANALYSIS, Simulation, a_release, plan_of, rates, with_plan, with_stage

from canary_mw.exceptions import CommandRefused


def shares(simulation: Simulation) -> float:
    """The percent of gray among the keys that were drawn in the present step."""
    keys = simulation.figures.keys_of_step
    return 100 * len(keys["gray"]) / (len(keys["gray"]) + len(keys["stable"]))


def test_equal_versions_go_through_all_steps() -> None:
    simulation = Simulation(a_release(5, 25, 50, pause=5, holdback=5, bake=20.0))
    seen = {}
    while simulation.phase != "Completed":
        simulation.run(1, rate=200, behaviour=rates(0.002, 0.002))
        if simulation.state is not None and simulation.state.elapsed >= 5:
            seen[simulation.weight] = shares(simulation)
        assert simulation.passed < 600, simulation.last.verdict
    assert simulation.phases == ["Pending", "Progressing", "Progressing", "Progressing", "Baking", "Completed"]
    assert simulation.weight == 100
    assert seen == {weight: pytest.approx(weight, abs=2.5) for weight in (5, 25, 50, 95)}


def test_a_gray_that_fails_is_rolled_back_and_nobody_reaches_it_any_more() -> None:
    simulation = Simulation(a_release(5, 25, 50))
    simulation.run(10, rate=100)
    assert simulation.weight == 5
    took = simulation.run_until("RolledBack", 30, rate=100, behaviour=rates(0.3, 0.0))
    assert took <= 15
    assert simulation.last.off
    assert "gray fails more often (gray, error_rate)" in simulation.messages[-1].text
    assert {simulation.request(b"user-%d" % number, rates()) for number in range(2000)} == {"stable"}
    assert simulation.request(b"user-1", rates(), chosen=b"gray") == "gray"


def test_an_incident_of_both_sides_is_no_fault_of_gray() -> None:
    simulation = Simulation(a_release(25, 50, pause=5))
    simulation.run(1)
    simulation.run(10, rate=100, behaviour=rates(0.2, 0.2))
    assert (simulation.phase, simulation.weight) == ("Progressing", 25)
    simulation.run_until("Completed", 900, rate=150)
    assert "RolledBack" not in simulation.phases


def test_one_user_who_fails_again_and_again_is_one_failed_key() -> None:
    simulation = Simulation(a_release(50, pause=5))
    simulation.run(1)
    simulation.run(5, rate=100)
    user = next(b"user-%d" % n for n in range(99) if simulation.request(b"user-%d" % n, rates()) == "gray")
    for _ in range(50):
        for _ in range(100):
            simulation.request(user, rates(1.0))
        simulation.run(1, rate=10)
    assert simulation.phase == "Progressing"
    assert sum(arm.failures for (metric, *_), arm in simulation.figures.arms.items() if metric == "error_rate") == 1
    assert simulation.weight == 50


def test_a_slower_gray_is_rolled_back() -> None:
    simulation = Simulation(a_release(25, 50))
    simulation.run(1)
    simulation.run_until("RolledBack", 60, rate=100, behaviour=rates(0.3, 0.05, metric="latency"))
    assert "gray is slower (gray, latency)" in simulation.messages[-1].text
    assert "keys were slow in gray" in simulation.messages[-1].text


def test_without_traffic_a_step_is_held_and_says_what_is_missing() -> None:
    simulation = Simulation(a_release(25, 50, pause=60))
    simulation.run_until("Held", 3700, every=60.0)
    assert simulation.state is not None
    assert simulation.state.held_by == "timeout"
    assert "the timeout of 60 minutes is over: 0 of 20 keys were seen in gray" in simulation.messages[-1].text
    assert simulation.weight == 25
    simulation.run_until("Progressing", 300, rate=100)
    assert simulation.weight == 50


def test_what_is_missing_is_counted() -> None:
    simulation = Simulation(a_release(25, 50, pause=5))
    simulation.run(1)
    simulation.run(6, rate=100)
    assert simulation.last.verdict is not None
    text = simulation.last.verdict.text
    assert text.startswith("the next step could hit more than the margin (gray, error_rate): about ")
    assert text.endswith(" more requests in gray")


def lead(simulation: Simulation, phase: str) -> None:
    """Bring a release that has just begun into a phase, some seconds before now."""
    if phase in ("Baking", "Completed"):
        simulation.tell("promote", full=True)
    if phase == "Completed":
        simulation.tell("promote")
    elif phase == "Paused":
        simulation.tell("pause")
    elif phase == "Held":
        simulation.run_until("Held", 3700, every=60.0)
    elif phase == "RolledBack":
        simulation.run_until("RolledBack", 60, rate=100, behaviour=rates(0.5))
    if phase in ("Progressing", "Baking"):
        simulation.run(3)


@pytest.mark.parametrize("phase", ["Pending", "Progressing", "Paused", "Held", "Baking", "Completed", "RolledBack"])
def test_another_process_goes_on_where_the_last_one_stopped(phase: str) -> None:
    simulation = Simulation(a_release(25, 50, pause=5, holdback=5, bake=50.0))
    lead(simulation, phase)
    before = simulation.state
    simulation.restart()
    assert simulation.state == before
    weight = simulation.weight
    simulation.now = replace(simulation.now, controller=False)
    simulation.run(20, rate=50)
    assert (simulation.phase, simulation.weight) == (phase, weight)
    assert simulation.state == before


def test_a_rollback_stays_after_a_restart_without_the_store() -> None:
    simulation = Simulation(a_release(25, 50, pause=5))
    simulation.run(1)
    simulation.run_until("RolledBack", 60, rate=100, behaviour=rates(0.5))
    simulation.restart()
    simulation.now = replace(simulation.now, store="away")
    simulation.run(30, rate=10)
    assert (simulation.phase, simulation.weight, simulation.last.off) == ("RolledBack", 0, True)


def test_without_the_store_a_new_process_gives_nobody_gray() -> None:
    simulation = Simulation(a_release(25, 50, pause=5))
    simulation.run(3)
    kept, simulation.state = simulation.state, None
    simulation.now = replace(simulation.now, store="away")
    simulation.run(30)
    assert (simulation.phase, simulation.weight) == ("Pending", 0)
    simulation.state, simulation.now = kept, replace(simulation.now, store="answered")
    simulation.run(1)
    assert (simulation.phase, simulation.weight) == ("Progressing", 25)


def test_a_document_is_edited_at_the_second_step() -> None:
    simulation = Simulation(a_release(5, 25, 50, pause=5))
    simulation.run(2)
    simulation.tell("promote")
    simulation.run(3, rate=100)
    assert simulation.document is not None
    document = simulation.document

    simulation.document = with_stage(document, 2, weights={"gray": 60.0})
    simulation.run(1)
    assert (simulation.phase, simulation.weight) == ("Progressing", 25)
    assert simulation.figures.keys

    simulation.document = with_stage(document, 0, weights={"gray": 10.0})
    simulation.run(1)
    assert (simulation.phase, simulation.weight) == ("Held", 25)
    assert "promote goes on with the next step" in simulation.messages[-1].text

    simulation.document = replace(document, revision="2")
    simulation.run(1)
    assert (simulation.phase, simulation.weight) == ("Pending", 0)
    assert simulation.state is not None
    assert simulation.state.attempt == 2
    assert not simulation.figures.keys


def test_testers_who_choose_gray_prove_nothing() -> None:
    simulation = Simulation(a_release(25, 50, pause=5))
    simulation.run(1)
    for second in range(30):
        for number in range(100):
            assert simulation.request(b"tester-%d" % (second * 100 + number), rates(1.0), chosen=b"gray") == "gray"
        simulation.run(1)
    assert (simulation.phase, simulation.weight) == ("Progressing", 25)
    assert not simulation.figures.keys


def test_users_do_not_leave_gray_while_its_weight_grows() -> None:
    simulation = Simulation(a_release(5, 25, 50, pause=5))
    gray: set[int] = set()
    for _ in range(4):
        simulation.tell("promote")
        now = {number for number in range(2000) if simulation.request(b"user-%d" % number, rates()) == "gray"}
        assert gray <= now
        gray = now
    assert len(gray) == 2000


def test_a_command_that_is_refused_leaves_nothing_behind() -> None:
    simulation = Simulation(a_release(25, 50, pause=5))
    simulation.tell("abort")
    state = simulation.state
    with pytest.raises(CommandRefused, match="retry begins the next attempt"):
        simulation.tell("promote", full=True)
    simulation.tell("retry")
    simulation.run(1)
    assert state is not None
    assert (simulation.phase, simulation.weight) == ("Progressing", 25)


def test_the_next_attempt_begins_without_the_evidence_of_the_last() -> None:
    simulation = Simulation(a_release(25, 50, pause=5))
    simulation.run(1)
    simulation.run_until("RolledBack", 60, rate=100, behaviour=rates(0.5))
    old = simulation.figures
    simulation.tell("retry")
    simulation.figures = old
    simulation.run(3)
    assert (simulation.phase, simulation.weight) == ("Progressing", 25)


def test_two_gray_variants_are_judged_each_by_itself() -> None:
    simulation = Simulation(a_release(20, 60, pause=5, variants=("blue", "green"), holdback=5))
    simulation.run(1)
    assert simulation.last.weights == {"blue": 10, "green": 10}

    def green_fails(variant: str, random: object) -> dict[str, bool]:
        return {"error_rate": variant == "green", "latency": False}

    simulation.run_until("RolledBack", 60, rate=50, behaviour=green_fails)
    assert "(green, error_rate)" in simulation.messages[-1].text
    assert simulation.last.weights == {"blue": 0, "green": 0}


def test_where_a_step_is_small_for_the_users_there_are_it_says_so() -> None:
    simulation = Simulation(a_release(1, 50, pause=5), keys=300)
    simulation.run(1)
    simulation.run(60, rate=20)
    assert simulation.last.verdict is not None
    assert " of 20 keys were seen in gray" in simulation.last.verdict.text


def test_a_gray_that_is_under_suspicion_waits() -> None:
    document = a_release(5, 50, pause=5, analysis=ANALYSIS._replace(alpha=1e-9))
    simulation = Simulation(with_plan(document, promote="auto"))
    simulation.run(1)
    simulation.run(30, rate=100, behaviour=rates(0.1, 0.01))
    assert plan_of(document).stages[0].analysis is not None
    assert simulation.weight == 5
    assert simulation.phase in ("Progressing", "RolledBack")
