"""The fields of a GrayRelease that say how its weight grows: pydantic models, used to read documents only."""

from typing import Annotated, Literal

from pydantic import Field

from canary_mw.config.ambassador.schema import Exact, Flag
from canary_mw.rules.plan import HookType, Mode, OnFailure, OnTimeout

METRIC_KINDS = ("error_rate", "latency", "event", "value")

# Its range is for editors: a number outside of it is reported as `release-weight-value`.
Percent = Annotated[int | float, Field(json_schema_extra={"minimum": 0, "maximum": 100})]
# A Go duration, as 1h30m; a number is one of seconds.
Duration = str | int | float
# A percent: 1% or 1.
Rate = str | int | float


class PauseModel(Exact):
    """How long a weight lasts at least; without `duration` until a human promotes."""

    duration: Duration | None = None


class PrometheusModel(Exact):
    """A query to Prometheus, or to what answers like it."""

    address: str
    query: str
    timeout: Duration = "10s"


class ProviderModel(Exact):
    """Where a metric comes from."""

    prometheus: PrometheusModel | None = None


class MetricModel(Exact):
    """How one metric is judged. `provider` and what stands below it are for metrics from outside."""

    name: str
    kind: Annotated[str | None, Field(json_schema_extra={"enum": [*METRIC_KINDS]})] = None
    direction: Literal["increase", "decrease"] | None = None
    share: int | float = 1
    on_failure: OnFailure | None = None
    threshold: Duration | None = None
    quantiles: list[str] | None = None
    allow: Duration | None = None
    margin: Rate | None = None
    tolerated: int | float = 1
    minimum_failures: int = 5
    ignore_below: Rate = "0.1%"
    provider: ProviderModel | None = None
    interval: Duration | None = None
    successCondition: str | None = None
    failureCondition: str | None = None
    failureLimit: int | None = None


class AnalysisModel(Exact):
    """On which evidence a step up, or a rollback, follows."""

    mode: Mode = "act"
    alpha: Rate = "1%"
    margin: Rate = "0.5%"
    minimum_keys: int = 20
    timeout: Duration = "6h"
    on_timeout: OnTimeout = "hold"
    metrics: list[MetricModel] | None = None


class StepModel(Exact):
    """One step: one of its fields."""

    setWeight: Percent | None = None
    pause: PauseModel | None = None
    analysis: AnalysisModel | None = None


class BakeModel(Exact):
    """What follows the last step."""

    duration: Duration = 0
    holdback: Rate = 0


class HookModel(Exact):
    """An address that is asked, or told."""

    type: HookType
    url: str
    timeout: Duration = "10s"
    name: str = ""
    muteAlert: Flag = False
    metadata: dict[str, str] = Field(default_factory=dict)


Steps = Literal["auto"] | list[StepModel]
