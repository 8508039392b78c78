"""Releases with steps that ask a real Prometheus besides: it takes them back, and its silence lets them wait."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from subprocess import DEVNULL, STDOUT, Popen
from typing import Any

import pytest
from servers import fetch, fetch_admin, free_port, run
from stepping import stepping

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SECONDS = 80
STEPS = [{"setWeight": 25}, {"pause": {"duration": "1s"}}, {"setWeight": 50}, {"pause": {}}, {"setWeight": 100}]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server without any data."""
    program = which("prometheus")
    if program is None:
        pytest.skip("prometheus is not there: the package prometheus has it")
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    (folder / "config.yml").write_text("{}")
    command = (program, f"--config.file={folder}/config.yml", f"--storage.tsdb.path={folder}/data")
    with (folder / "log").open("w") as log:
        running = Popen((*command, f"--web.listen-address=127.0.0.1:{port}"), stdin=DEVNULL, stdout=log, stderr=STDOUT)
    try:
        while not is_ready(port):
            assert running.poll() is None, (folder / "log").read_text()
        yield port
    finally:
        running.kill()
        running.wait()


def is_ready(port: int) -> bool:
    try:
        return run(fetch(port, "/-/ready")).status == 200
    except OSError:
        return False


def analysis(port: int, query: str, **changes: Any) -> dict[str, Any]:
    """So wide that some requests are enough."""
    asked = {
        "name": "load",
        "provider": {"prometheus": {"address": f"http://127.0.0.1:{port}", "query": query}},
        "interval": "1s",
        "successCondition": "result[0] < 0.4",
        **changes,
    }
    return {"margin": "20%", "minimum_keys": 1, "metrics": [{"name": "error_rate"}, asked]}


def test_a_query_that_fails_too_often_takes_the_release_back(tmp_path: Path, prometheus: int) -> None:
    judged = analysis(prometheus, "vector({{weight}} / 100)", failureLimit=1)

    async def main() -> None:
        async with stepping(tmp_path, workers=2, hook_hosts="127.0.0.1", steps=STEPS, analysis=judged) as release:
            state = await release.until(lambda state: state.phase == "RolledBack", load=100)
            # The next answer may be there when two are seen to be too many.
            assert re.fullmatch(r"the query load failed [23] times, more than 1: 0\.5", state.reason)
            # It was Paused, as its plan says, when it was taken back.
            assert [each.weights["gray"] for each in state.history] == [0, 25, 50, 50, 0]
            assert {who for _, who in await release.users.send(400)} == {b"stable"}

    run(main(), SECONDS)


def test_without_an_answer_the_release_waits_and_says_for_what(tmp_path: Path, prometheus: int) -> None:
    async def main() -> None:
        nothing = analysis(prometheus, 'load{release="{{release}}"}')
        async with stepping(tmp_path, workers=1, hook_hosts="127.0.0.1", steps=STEPS, analysis=nothing) as release:
            await release.until(lambda state: state.weight == 25)

            async def rollout() -> Any:
                await release.users.send(200)
                answer = json.loads((await fetch_admin(release.admin, "/api/v1/releases/shop")).body)["rollout"]
                return answer["next"]["text"], [each["said"] for each in answer["queries"]]

            waiting = "the query load has no answer: there is no data", ["unanswered"]
            while await rollout() != waiting:
                pass
            assert (release.state.phase, release.state.weight) == ("Progressing", 25)
            release.write(steps=STEPS, analysis=analysis(prometheus, "scalar(vector(0.1))"))
            await release.until(lambda state: state.weight == 50, load=100)

    run(main(), SECONDS)
