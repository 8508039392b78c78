"""The fields of a GrayRelease with their types: a pydantic model, used to read documents only."""

from typing import Annotated, Any, Literal

from pydantic import Field

from canary_mw.config.ambassador.schema import Flag, Strict
from canary_mw.config.canary.plan_schema import AnalysisModel, BakeModel, HookModel, Steps
from canary_mw.rules.plan import OnFailure, Promote
from canary_mw.rules.release import DEFAULT_BUDGET, HashKind, Missing

# Its range is for editors: a number outside of it is reported as `release-weight-value`.
Percent = Annotated[int | float, Field(json_schema_extra={"minimum": 0, "maximum": 100})]
Texts = str | list[str]
# A map of one key is checked in `fields.py`, because an unknown kind of key has a finding of its own.
Key = str | dict[str, Any]


class IdsModel(Strict):
    """Ids, and a file with one id a line."""

    ids: list[str] = Field(default_factory=list)
    file: str | None = None


class VariantModel(Strict):
    """A variant with more than its percent."""

    weight: Percent | None = None
    share: int | float | None = None
    mappings: list[str] | None = None
    at: Percent | None = None
    grow: Literal["up", "down"] = "up"
    always: IdsModel | None = None


class HashModel(Strict):
    """The hash function of another product, with the name that it hashes."""

    kind: Literal["sha256", "unleash", "growthbook", "flagd-v2", "flagd-v3"]
    group: str | None = None
    seed: str | None = None
    flag: str | None = None


class CookieModel(Strict):
    """The cookie with a random id."""

    name: str = "cmw_id"
    max_age: int = 34_560_000
    domain: str | None = None
    path: str = "/"
    same_site: Literal["Lax", "Strict", "None"] = "Lax"
    consent: str | None = None


class ValuesModel(Strict):
    """The words of an explicit choice."""

    always: list[str] = Field(default_factory=lambda: ["always"])
    never: list[str] = Field(default_factory=lambda: ["never"])


class ChoiceModel(Strict):
    """Where a request names its variant."""

    header: str | None = None
    cookie: str | None = None
    query: str | None = None
    values: ValuesModel = Field(default_factory=ValuesModel)
    trusted: Flag = False


class LayerModel(Strict):
    """A slice of a layer; `from` is a keyword of Python."""

    name: str
    start: Percent = Field(alias="from")
    end: Percent = Field(alias="to")


class HoldoutModel(Strict):
    """Users who get no gray."""

    name: str
    percent: Percent


class BudgetModel(Strict):
    """How many fallbacks there may be."""

    percent: int = DEFAULT_BUDGET.percent
    min: int = DEFAULT_BUDGET.min
    interval: int = DEFAULT_BUDGET.interval


class FallbackModel(Strict):
    """When stable answers in place of a failing gray variant."""

    on: list[int | str] | None = None
    gray_timeout_ms: int | None = None
    methods: list[str] | None = None
    body: int = 0
    budget: BudgetModel = Field(default_factory=BudgetModel)


class PropagateModel(Strict):
    """Which hosts are told of the decision."""

    hosts: list[str] = Field(default_factory=list)
    header: str = "x-canary-lane"
    baggage: Flag = False
    format: Literal["lane", "tag"] = "lane"


class GrayReleaseModel(Strict):
    """`canary-mw/v1`."""

    gray: dict[str, Percent | VariantModel] | list[str]
    enabled: Flag = True
    stable: Texts | None = None
    salt: str | None = None
    lane: str | None = None
    hash: HashKind | HashModel | None = None
    sticky: Key | list[Key] | None = None
    missing: Missing | None = None
    cookie: CookieModel = Field(default_factory=CookieModel)
    choice: ChoiceModel = Field(default_factory=ChoiceModel)
    never: IdsModel | None = None
    layer: LayerModel | None = None
    holdout: HoldoutModel | None = None
    audience: dict[str, Any] | None = None
    on_zero: Literal["eject", "drain"] = "eject"
    fallback: FallbackModel | None = None
    propagate: PropagateModel = Field(default_factory=PropagateModel)
    response_header: str | bool | None = None
    revision: str | None = None
    steps: Steps | None = None
    analysis: AnalysisModel | None = None
    bake: BakeModel | None = None
    promote: Promote | None = None
    on_failure: OnFailure | None = None
    hooks: list[HookModel] | None = None
    ambassador_id: Texts | None = None
