"""What may happen to the processes that drive a release: nobody gets more of gray than the state says.

The rules are those of docs/progressive-delivery.md. Every test has processes of its own.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from collections.abc import Mapping as Dict
from pathlib import Path

import pytest
from servers import Process, free_port, process
from staged import (
    LONG,
    PHASES,
    States,
    Upstreams,
    ask,
    gray_share,
    put_states,
    rules,
    serve_options,
    small_disk,
    until,
    upstreams,
)
from workers import workers
from wsgiprocess import served

pytestmark = pytest.mark.slow

WEIGHTS = {
    "pending": 0,
    "progressing": 20,
    "paused": 20,
    "held": 20,
    "baking": 100,
    "completed": 100,
    "rolledback": 0,
    "aborted": 0,
}
NOTHING: Dict[str, str] = {}
# One key is a percent.
NEAR = 12


class Place:
    """Rules, a folder of states, and the upstreams."""

    def __init__(self, folder: Path, found: Upstreams) -> None:
        self.path, self.state = folder / "rules.yaml", folder / "state"
        self.states = States(self.state)
        self.upstreams = found
        self._logs = folder

    @contextlib.contextmanager
    def served(
        self, count: int = 1, name: str = "serve", environ: Dict[str, str] = NOTHING
    ) -> Iterator[tuple[Process, int]]:
        port = free_port()
        options = serve_options(self.path, self.state, self.upstreams, port, count)
        with process(*options, log=self._logs / f"{name}.log", wait_for=[port], **environ) as running:
            yield running, port

    def shares(self, port: int) -> dict[str, float]:
        return {name: gray_share(port, name) for name in PHASES}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with upstreams() as found:
        yield Place(tmp_path, found)


@pytest.fixture
def seeded(place: Place) -> Place:
    text = rules(*PHASES)
    place.path.write_text(text)
    put_states(place.state, text)
    return place


def is_near(shares: dict[str, float]) -> bool:
    return all(abs(shares[name] - weight) <= (NEAR if 0 < weight < 100 else 0) for name, weight in WEIGHTS.items())


def test_a_controller_that_is_killed_is_replaced_in_every_phase(seeded: Place) -> None:
    """Steps and seconds are kept, and no state is raised."""
    states = seeded.states
    states.log_writes()
    with seeded.served(count=4) as (running, port):
        first = until(states.controller)
        until(lambda: states.all()["progressing"][0].elapsed > 0)
        assert is_near(seeded.shares(port)), seeded.shares(port)
        before = states.all()
        assert first in workers(running.child.pid)
        os.kill(first, signal.SIGKILL)
        second = until(lambda: states.controller() not in (0, first) and states.controller())
        until(lambda: states.all()["progressing"][0].elapsed > before["progressing"][0].elapsed)
        assert second in workers(running.child.pid)
        after = states.all()
        assert is_near(seeded.shares(port)), seeded.shares(port)
    for name in PHASES:
        assert after[name][0].phase == before[name][0].phase, name
        assert (after[name][0].step, after[name][0].weights) == (before[name][0].step, before[name][0].weights), name
        assert before[name][0].elapsed <= after[name][0].elapsed < 600, name
        assert states.writes(name) == [], name


def test_a_restart_goes_on_in_every_phase(seeded: Place) -> None:
    with seeded.served(count=2):
        until(lambda: seeded.states.all()["progressing"][0].elapsed > 0)
    before = seeded.states.all()
    with seeded.served(name="again") as (_, port):
        assert is_near(seeded.shares(port)), seeded.shares(port)
        until(lambda: seeded.states.all()["progressing"][0].elapsed > before["progressing"][0].elapsed)
    after = seeded.states.all()
    assert {name: row[0].phase for name, row in after.items()} == {name: row[0].phase for name, row in before.items()}
    assert after["paused"][0].elapsed == before["paused"][0].elapsed


@pytest.mark.parametrize("harm", ["readable", "others may use it", "no database"])
def test_what_was_rolled_back_stays_so_after_a_restart(seeded: Place, harm: str) -> None:
    """A state that cannot be read gives gray to nobody, whatever it was."""
    if harm == "others may use it":
        seeded.state.chmod(0o755)
    if harm == "no database":
        (seeded.state / "state.db").write_bytes(b"no database" * 1000)
    with seeded.served() as (running, port):
        shares = seeded.shares(port)
        chosen = gray_share(port, "rolledback", keys=5, **{"x-choose": "always"})
        logged = running.output
    assert shares["rolledback"] == shares["aborted"] == 0
    assert chosen == 100
    if harm == "readable":
        assert is_near(shares)
    else:
        assert set(shares.values()) == {0}
        assert f"the state folder {seeded.state} cannot be read" in logged


def test_everybody_is_on_stable_while_the_file_stop_is_there(seeded: Place) -> None:
    with seeded.served(count=2) as (_, port):
        assert is_near(seeded.shares(port))
        (seeded.state / "stop").touch()
        until(lambda: not any(seeded.shares(port).values()))
        assert not any(gray_share(port, name, keys=5, **{"x-choose": "always"}) for name in PHASES)
    with seeded.served(name="again") as (_, port):
        assert not any(seeded.shares(port).values())
        (seeded.state / "stop").unlink()
        until(lambda: is_near(seeded.shares(port)))


def test_everybody_is_on_stable_where_the_environment_of_a_proxy_says_so(seeded: Place) -> None:
    with seeded.served(environ={"CANARY_MW_ENABLED": "0"}) as (running, port):
        assert not any(seeded.shares(port).values())
        assert "all releases are stopped" in running.output


def test_in_a_cluster_without_a_shared_store_nobody_gets_gray(seeded: Place) -> None:
    cluster = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    with seeded.served(environ=cluster) as (_, port):
        assert not any(seeded.shares(port).values())
    with seeded.served(name="single", environ={**cluster, "CANARY_MW_SINGLE": "1"}) as (_, port):
        assert is_near(seeded.shares(port))


def test_a_controller_that_is_stopped_and_goes_on_never_raises_past_the_state(place: Place) -> None:
    """While it is stopped the others raise nothing, and roll back on what they see."""
    judged = rules("judged", steps=[{"setWeight": 50}, LONG, {"setWeight": 100}], analysis={})
    timed = rules("timed", steps=[{"setWeight": 20}, {"pause": {"duration": "4s"}}, {"setWeight": 100}])
    place.path.write_text(judged + timed)
    environ = {"CANARY_MW_RUN_DIR": str(place.state.parent / "run")}
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(place.served(name=f"server-{number}", environ=environ)) for number in range(2)]
        until(lambda: place.states.all().get("timed", (None,))[0])
        place.states.log_writes()
        first = until(place.states.controller)
        stopped = next(each for each in servers if each[0].child.pid == first)
        running = next(each for each in servers if each[0].child.pid != first)
        until(lambda: gray_share(running[1], "judged") > 30)
        os.kill(first, signal.SIGSTOP)
        try:
            place.upstreams.failing = True
            gray_share(running[1], "judged")
            raised = [state.weights for _, state in place.states.writes("timed")]
            until(lambda: place.states.all()["judged"][0].phase == "RolledBack")
            assert gray_share(running[1], "judged") == 0
            assert [state.weights for _, state in place.states.writes("timed")] == raised
        finally:
            os.kill(first, signal.SIGCONT)
        version = place.states.all()["judged"][1]
        assert gray_share(stopped[1], "judged") == 0
        until(lambda: place.states.all()["timed"][0].weights == {"timed-gray": 100.0})
        assert place.states.all()["judged"][1] == version
        assert gray_share(stopped[1], "judged") == gray_share(running[1], "judged") == 0
        versions = [version for version, _ in place.states.writes("timed")]
        assert versions == sorted(set(versions))


def test_gray_that_fails_is_off_in_all_workers_with_the_next_request(place: Place) -> None:
    text = rules("judged", steps=[{"setWeight": 20}, LONG, {"setWeight": 100}], analysis={})
    place.path.write_text(text)
    place.upstreams.failing = True
    with place.served(count=4) as (running, port):
        until(lambda: gray_share(port, "judged", keys=50) and place.states.all()["judged"][0].phase == "Progressing")
        until(lambda: gray_share(port, "judged") >= 0 and place.states.all()["judged"][0].phase == "RolledBack")
        assert len(workers(running.child.pid)) == 4
        # Each connection is that of some worker.
        assert sum(gray_share(port, "judged", keys=100) for _ in range(20)) == 0


def test_evidence_outlives_a_restart(place: Place) -> None:
    """Five keys that fail are enough: three before it, and two after it."""
    place.path.write_text(rules("judged", steps=[{"setWeight": 5}, LONG, {"setWeight": 100}], analysis={}))
    keys = [f"user-{number}" for number in range(400)]
    with place.served(count=2) as (_, port):
        until(lambda: "gray" in ask(port, "judged", *keys[:100]))
        gray = [key for key, who in zip(keys, ask(port, "judged", *keys), strict=True) if who == "gray"]
        place.upstreams.failing = True
        ask(port, "judged", *gray[:3])
    assert place.states.all()["judged"][0].phase == "Progressing"
    with place.served(name="again") as (_, port):
        ask(port, "judged", *gray[3:5])
        until(lambda: place.states.all()["judged"][0].phase == "RolledBack")
        assert set(ask(port, "judged", *keys)) == {"stable"}


def test_a_full_disk_lowers_and_raises_nothing(place: Place) -> None:
    """What is rolled back meanwhile is off in all workers, and is stored when there is room again."""
    judged = rules("judged", steps=[{"setWeight": 20}, LONG, {"setWeight": 100}], analysis={})
    timed = rules("timed", steps=[{"setWeight": 20}, {"pause": {"duration": "3s"}}, {"setWeight": 100}])
    place.path.write_text(judged + timed)
    disk = place.state
    with small_disk(disk) as fill, place.served(count=2) as (running, port):
        until(lambda: place.states.all().get("timed", (None, 0))[1] and gray_share(port, "timed") > 0)
        fill()
        place.upstreams.failing = True
        until(lambda: gray_share(port, "judged") == 0)
        until(lambda: "cannot be written" in running.output)
        assert gray_share(port, "timed") < 20 + NEAR
        assert sum(gray_share(port, "judged") for _ in range(8)) == 0
        assert place.states.all()["judged"][0].phase == "Progressing"
        (disk / "fill").unlink()
        until(lambda: place.states.all()["judged"][0].phase == "RolledBack")
        until(lambda: gray_share(port, "timed") == 100)
        assert gray_share(port, "judged") == 0


def test_a_disk_that_cannot_be_written_gives_gray_to_nobody(place: Place) -> None:
    """A process that starts on it knows nothing of what others have seen since; who names gray gets it."""
    text = rules(*PHASES)
    place.path.write_text(text)
    with small_disk(place.state):
        put_states(place.state, text)
        subprocess.run(["mount", "-o", "remount,ro", place.state], check=True)
        with place.served() as (running, port):
            assert not any(place.shares(port).values())
            assert gray_share(port, "progressing", keys=5, **{"x-choose": "always"}) == 100
            assert f"the state folder {place.state} cannot be read" in running.output


@pytest.mark.parametrize("server", ["sync", "gthread", "gevent", "gevent preload", "preload", "uvicorn"])
def test_the_controller_runs_in_a_worker_and_ends_with_it(tmp_path: Path, server: str) -> None:
    state, log = tmp_path / "state", tmp_path / "server.log"
    path = tmp_path / "rules.yaml"
    path.write_text(rules("timed", steps=[{"setWeight": 100}]))
    environ = {"STEPPED_RULES": str(path), "CANARY_MW_STATE": str(state)}
    with contextlib.ExitStack() as stack:
        if server == "uvicorn":
            port = free_port()
            options = ["stepped:create_asgi", "--factory", "--port", str(port), "--workers", "2", "--app-dir"]
            folder = str(Path(__file__).parents[1] / "support")
            running = stack.enter_context(
                process(*options, folder, log=log, wait_for=[port], module="uvicorn", PYTHONPATH=folder, **environ)
            )
        else:
            running, port = stack.enter_context(served(server, "stepped:create_app", log, **environ))
        until(lambda: gray_share(port, "timed", keys=5) == 100)
        controller = States(state).controller()
        assert controller not in (0, running.child.pid)
        assert running.stop() == 0
        assert not os.path.exists(f"/proc/{controller}")
        assert "Traceback" not in running.output
