"""The evidence and the rollbacks of releases over several pods: one judges for all, and each of them can alone."""

from pathlib import Path

import pytest
from pod_releases import by_time, is_off, judged, keys, use
from pods import PEER, Kind, cluster
from staged import rules, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

WRONG = "another-token-0123456789abcdef"


@pytest.mark.parametrize(("kind", "workers"), [("proxy", 2), ("app", 2)])
def test_gray_that_fails_a_little_in_each_pod_is_off_in_all_of_them(tmp_path: Path, kind: Kind, workers: int) -> None:
    """No pod sees enough for a verdict; the one that leads does."""
    with judged(tmp_path, kind, workers=workers) as found:
        users = keys(400)
        given = found.pods[0].ask("judged", *users)
        gray = [key for key, who in zip(users, given, strict=True) if who == "gray"]
        found.upstreams.failing = True
        for number, pod in enumerate(found.pods):
            pod.ask("judged", *gray[4 * number : 4 * number + 4])
        until(lambda: found.api.state("judged").phase == "RolledBack")
        until(lambda: all(each.rollout("judged")["phase"] == "RolledBack" for each in found.pods))
        for pod in found.pods:
            assert "gray" not in pod.ask("judged", *users)
        assert len([each for each in found.api.writes("judged") if each.state.latched]) == 1


def test_without_the_api_each_pod_rolls_back_alone_and_one_write_wins(tmp_path: Path) -> None:
    """Their tokens are no good, so that no pod believes another one. A new emptyDir forgets nothing."""
    with judged(tmp_path) as found:
        before = len(found.api.writes("judged"))
        for pod in found.pods:
            pod.show(WRONG)
        found.api.kill()
        found.upstreams.failing = True
        until(lambda: all(is_off(pod, "judged") for pod in found.pods))
        assert found.api.state("judged").phase == "Progressing"
        found.api.start()
        until(lambda: found.api.state("judged").phase == "RolledBack")
        until(lambda: all(each.rollout("judged")["phase"] == "RolledBack" for each in found.pods))
        assert len(found.api.writes("judged")) == before + 1
        assert not any(each.share("judged") for each in found.pods)

        # Rule 5: a new pod, with the API and without it.
        lost = found.pods[0]
        lost.kill()
        lost.empty()
        lost.start()
        lost.wait_until_ready()
        assert lost.share("judged") == 0
        found.api.kill()
        for pod in found.pods[:2]:
            pod.kill()
        found.pods[0].empty()
        for pod in found.pods[:2]:
            # One knows what was there before, and one knows nothing.
            pod.start()
        for pod in found.pods[:2]:
            pod.wait_until_ready()
            assert pod.share("judged") == 0


def test_a_token_that_is_wrong_says_nothing_and_moves_nothing(tmp_path: Path) -> None:
    with judged(tmp_path) as found:
        pod = found.pods[0]
        for token, status in (("", 403), (WRONG, 401)):
            assert pod.admin("GET", "/api/v1/evidence", token)[0] == status
            assert pod.admin("POST", "/api/v1/releases/judged/rolled-back", token, body={"attempt": 1})[0] == status
        assert pod.admin("GET", "/api/v1/evidence", PEER)[0] == 200
        # Who may only speak as a peer gives no commands.
        assert pod.admin("POST", "/api/v1/releases/judged/promote", PEER)[0] == 403
        assert not any(is_off(each, "judged") for each in found.up)
        assert found.api.state("judged").phase == "Progressing"


def test_a_pod_that_rolls_back_without_the_api_tells_the_others(tmp_path: Path) -> None:
    with judged(tmp_path) as found:
        leader, others = found.leader, found.followers()
        found.api.kill()
        found.upstreams.failing = True
        until(lambda: is_off(leader, "judged"))
        found.upstreams.failing = False
        until(lambda: all(is_off(pod, "judged") for pod in others))
        assert found.api.state("judged").phase == "Progressing"


def test_nothing_is_raised_while_the_evidence_of_a_pod_is_missing(tmp_path: Path) -> None:
    """At first no pod can be reached, then one believes none of the others."""
    wide = {"margin": "20%", "minimum_keys": 5, "metrics": [{"name": "error_rate"}]}
    steps = by_time(50, 60, 100, seconds=1)
    with cluster(tmp_path) as found:
        found.prepare(rules("judged", steps=steps, analysis=wide), phases={"judged": "Progressing"})
        pods = [found.add() for _ in range(3)]
        pods[2].believe(WRONG)
        for pod in pods:
            pod.start()
        found.publish(admin_port=9)
        for pod in pods:
            pod.wait_until_ready()
        leader = found.leader
        until(lambda: "no release is raised while evidence of pods is missing" in leader.output)
        use(pods)
        until(lambda: found.api.state("judged").phase == "Held")
        assert {each.state.weight for each in found.api.writes("judged")} == {50}
        found.publish()
        # Only another one than itself can refuse to be asked.
        until(lambda: leader is pods[2] or "refuses the token" in leader.output)
        assert {each.state.weight for each in found.api.writes("judged")} == {50}
        pods[2].believe(PEER)
        until(lambda: use(pods) and found.api.state("judged").weight == 100)
