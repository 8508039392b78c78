"""Recorded splits: what SHA-256, the claims, and the clients of other products give, and what whole documents mean."""

import json
from pathlib import Path
from typing import Any

import pytest

from canary_mw.config.document import Document
from canary_mw.config.parser import parse
from canary_mw.inspection.explanation_json import explain_batch
from canary_mw.routing.ranges import Claims, moved_slots
from canary_mw.routing.sticky import slot_function
from canary_mw.routing.table import RouteTable
from canary_mw.rules.release import HashFunction

FOLDER = Path(__file__).parent / "splits"


def load(name: str) -> Any:
    return json.loads((FOLDER / name).read_text("utf-8"))


def mapping(name: str) -> str:
    head = "---\napiVersion: getambassador.io/v3alpha1\nkind: Mapping\n"
    return f"{head}name: '{name}'\nhostname: '*'\nprefix: /p/\nservice: '{name}'\nweight: 0\n"


def claims(weights: dict[str, Any], **more: Any) -> Claims:
    document = {"apiVersion": "canary-mw/v1", "kind": "GrayRelease", "name": "r", "gray": weights, **more}
    text = mapping("s") + "".join(map(mapping, weights)) + f"---\n{json.dumps(document)}\n"
    rules = parse([Document(text, "rules")])
    table = RouteTable.build(rules.mappings, releases=rules.releases)
    return table.releases["r"].claims


def test_a_key_has_the_slot_that_any_sha_256_gives() -> None:
    for vector in load("hash.json"):
        slot = slot_function(HashFunction("sha256", vector["salt"]))
        assert slot(vector["key"].encode()) == vector["slot"], vector


@pytest.mark.parametrize("sequence", load("ranges.json"), ids=lambda sequence: sequence["id"])
def test_variants_own_the_slots_of_the_record(sequence: Any) -> None:
    before = None
    for step in sequence["steps"]:
        pins = sequence["pins"]
        now = claims({name: {"weight": w, **pins.get(name, {})} for name, w in step["weights"].items()})
        assert {name: [list(each) for each in ranges] for name, ranges in now.ranges.items()} == step["ranges"]
        assert before is None or moved_slots(before, now) == step["moved"]
        before = now


@pytest.mark.parametrize("case", load("compat.json")["cases"], ids=lambda case: f"{case['hash']}")
def test_users_of_other_products_keep_their_variant(case: Any) -> None:
    data = load("compat.json")
    function = HashFunction(case["hash"]["kind"], next(v for k, v in case["hash"].items() if k != "kind"))
    slot, owner = slot_function(function), claims(case["gray"], hash=case["hash"]).owner
    # flagd's client for JavaScript hashes other texts than ASCII differently.
    known = data["ascii"] if function.kind == "flagd-v2" else range(len(data["ids"]))
    wrong = [data["ids"][n] for n in known if owner(slot(data["ids"][n].encode())) != case["expect"][n]]
    assert wrong == []


def outcomes(result: dict[str, Any]) -> list[tuple[Any, ...]]:
    found = result["candidates"]
    return sorted((c["mapping"] or c["service"], c["assigned"], round(c["weight_percent"], 6)) for c in found)


@pytest.mark.parametrize("case", load("documents.json"), ids=lambda case: case["id"])
def test_a_document_means_what_the_record_says(case: Any) -> None:
    message = {"rules": case["rules"], "mode": case["mode"], "local": case["local"], "requests": case["requests"]}
    answer = explain_batch(message, {})
    expected = set(case["diagnostics"])
    codes = {d["code"] for d in answer["diagnostics"] if d["severity"] != "notice" or d["code"] in expected}
    assert codes == expected
    for number, result in enumerate(answer["results"]):
        if case["live"]:
            assert_as_recorded(result, case["expect"][number])
        else:
            assert result["release"] is None
            assert {name for name, *_ in outcomes(result)} <= {"svc", None}


def assert_as_recorded(result: dict[str, Any], wanted: dict[str, Any]) -> None:
    told = result["release"]
    if wanted["release"] is not None and told is not None:
        told = {name: told[name] for name in wanted["release"]}
    assert told == wanted["release"]
    assert outcomes(result) == sorted((name, variant, round(share, 6)) for name, variant, share in wanted["candidates"])
