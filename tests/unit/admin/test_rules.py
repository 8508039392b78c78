"""What the admin port tells of the rules in force."""

from canary_mw.admin.rules import describe_rules
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore

MAPPING = "apiVersion: getambassador.io/v2\nkind: Mapping\nname: {0}\nprefix: /svc/\nservice: {0}\n{1}\n---\n"
RELEASE = """\
apiVersion: canary-mw/v1
kind: GrayRelease
name: r
gray: {gray: 20}
layer: {name: l, from: 0, to: 50}
sticky: [{header: k}]
"""


def test_a_governed_group_is_shown_with_what_users_get() -> None:
    mappings = "".join(
        MAPPING.format(name, weight)
        for name, weight in (("a", "weight: 30"), ("b", "weight: 10"), ("gray", "weight: 0"))
    )
    store = RuleStore(StaticSource(mappings + RELEASE))
    store.reload()
    (group,) = describe_rules(store)["groups"]
    assert group["release"] == "r"
    found = {each["mapping"]: (each["variant"], round(each["percent"], 6)) for each in group["members"]}
    assert found == {"gray": ("gray", 10.0), "a": ("stable", 67.5), "b": ("stable", 22.5)}
