"""`steps`, `analysis`, `bake` and `hooks` of a GrayRelease -> `Plan`."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from canary_mw.config.canary import fields
from canary_mw.config.canary.analysis import analysis
from canary_mw.config.canary.fields import FieldError, shown
from canary_mw.config.canary.plan_schema import HookModel, PauseModel, StepModel
from canary_mw.config.canary.quantities import duration, number, rate
from canary_mw.config.canary.schema import GrayReleaseModel, HashModel, VariantModel
from canary_mw.rules.plan import Analysis, Hook, Plan, Stage, divided
from canary_mw.rules.slots import SLOTS_PER_PERCENT
from canary_mw.rules.wording import quoted

AUTO_WEIGHTS = (1, 5, 25, 50, 100)
_AUTO_PAUSE = "10m"
MOST_STEPS = 1_000
_STEP_HINT = "write `- setWeight: 5`, `- pause: {duration: 10m}` or `- analysis: {...}`"
_PERCENTS_HINT = "write gray: [NAME] or {NAME: {share: 1}}, or leave steps out"
Shares = tuple[tuple[str, float], ...]


def shares(model: GrayReleaseModel) -> Shares:
    """The shares of the variants in each step, as written; 1 where none is."""
    if isinstance(model.gray, list):
        return tuple((name, 1.0) for name in model.gray)
    return tuple((name, _share(name, written)) for name, written in model.gray.items())


def _share(name: str, written: float | VariantModel) -> float:
    path = f"gray.{name}"
    if not isinstance(written, VariantModel) or written.weight is not None:
        text = f"{path} is a percent, and steps say the percents too"
        raise FieldError("release-steps", path, text, _PERCENTS_HINT)
    return 1.0 if written.share is None else number(written.share, path, least=0, above=True)


def _analysis(model: GrayReleaseModel) -> Analysis | None:
    return None if model.analysis is None else analysis(model.analysis)


def _bake(model: GrayReleaseModel) -> tuple[float, float]:
    """Seconds and percent."""
    if model.bake is None:
        return 0.0, 0.0
    share = rate(model.bake.holdback, "bake.holdback", with_zero=True, with_most=False)
    holdback = fields.slots(round(share * 100, 9), "bake.holdback") / SLOTS_PER_PERCENT
    return duration(model.bake.duration, "bake.duration"), holdback


def _hooks(model: GrayReleaseModel) -> tuple[Hook, ...]:
    return tuple(_hook(each, f"hooks.{index}") for index, each in enumerate(model.hooks or ()))


def _hook(model: HookModel, path: str) -> Hook:
    if not _is_address(model.url):
        text = f"{shown(path)}: {quoted(model.url)} is no address of http or https"
        raise FieldError("bad-value", f"{path}.url", text, "write url: http://HOST/PATH")
    timeout = duration(model.timeout, f"{path}.timeout", above=0)
    metadata = tuple(sorted(model.metadata.items()))
    return Hook(model.type, model.url, timeout, model.name or model.type, metadata, model.muteAlert)


def _is_address(url: str) -> bool:
    """Whether a hook can be sent there: an absolute URL in plain ASCII."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0


def _stages(model: GrayReleaseModel) -> tuple[Stage, ...]:
    if model.steps is None:
        return ()
    steps = auto_steps() if model.steps == "auto" else model.steps
    _check_number(steps)
    reading = _Reading(shares(model), _bake(model)[1], _analysis(model))
    for index, step in enumerate(steps):
        reading.take(step, f"steps.{index}", index + 1)
    stages = reading.finished(len(steps))
    _check_hash(model, stages)
    return stages


def _check_number(steps: Sequence[StepModel]) -> None:
    if not steps or len(steps) > MOST_STEPS:
        text = "steps is empty" if not steps else f"steps has {len(steps)} steps, more than {MOST_STEPS}"
        raise FieldError("release-steps", "steps", text, "write steps: auto for 1, 5, 25, 50 and 100 percent")


def auto_steps() -> list[StepModel]:
    """The steps of `steps: auto`."""
    pause = StepModel(pause=PauseModel(duration=_AUTO_PAUSE))
    steps = [each for weight in AUTO_WEIGHTS for each in (StepModel(setWeight=weight), pause)]
    # At 100 percent there is no stable to compare with; `bake` says how long to wait there.
    return steps[:-1]


class _Reading:
    """The stages of the steps that were read so far."""

    def __init__(self, shares: Shares, holdback: float, before: Analysis | None) -> None:
        self._shares = shares
        self._most = 100.0 - holdback
        self._analysis = before
        self._stages: list[Stage] = []
        self._written = 0.0

    def take(self, step: StepModel, path: str, item: int) -> None:
        """Read one step."""
        kind = _kind_of(step, path)
        if kind == "setWeight":
            self._set_weight(step.setWeight or 0.0, f"{path}.setWeight", item)
        elif kind == "pause" and step.pause is not None:
            self._pause(step.pause, f"{path}.pause")
        elif step.analysis is not None:
            self._analysis = analysis(step.analysis, f"{path}.analysis", self._analysis)
            self._change_last(analysis=self._analysis)

    def _set_weight(self, percent: float, path: str, item: int) -> None:
        fields.slots(percent, path)
        if percent == 0:
            hint = "leave it out; promote: manual, or a hook confirm-rollout, waits there"
            raise FieldError("release-steps", path, f"{shown(path)} is 0, where each release begins", hint)
        if percent < self._written:
            text = f"{shown(path)} is {percent:g}, less than {self._written:g} before it"
            raise FieldError("release-steps", path, text, "let the weights grow; abort and set-weight lower them")
        self._written = percent
        weights = divided(min(percent, self._most), self._shares)
        self._stages.append(Stage(weights, analysis=self._analysis, item=item))

    def _pause(self, pause: PauseModel, path: str) -> None:
        if not self._stages:
            hint = "write setWeight first; promote: manual, or a hook confirm-rollout, waits at weight 0"
            raise FieldError("release-steps", path, f"{shown(path)} stands before the first setWeight", hint)
        if pause.duration is None:
            self._change_last(until_promoted=True)
        else:
            seconds = duration(pause.duration, f"{path}.duration")
            self._change_last(pause=self._stages[-1].pause + seconds)

    def _change_last(self, **changes: Any) -> None:
        if self._stages:
            self._stages[-1] = self._stages[-1]._replace(**changes)

    def finished(self, items: int) -> tuple[Stage, ...]:
        """The stages, the last one at the full weight."""
        if not self._stages:
            raise FieldError("release-steps", "steps", "steps has no setWeight", _STEP_HINT)
        full = divided(self._most, self._shares)
        if self._stages[-1].weights != full:
            self._stages.append(Stage(full, analysis=self._analysis, item=items + 1))
        return tuple(self._stages)


def _kind_of(step: StepModel, path: str) -> str:
    """The one field of a step."""
    written = [*step.model_fields_set]
    if len(written) != 1:
        text = f"{shown(path)} has {' and '.join(sorted(written)) or 'no field'}"
        raise FieldError("release-steps", path, f"{text}: a step has one field", _STEP_HINT)
    return written[0]


def _check_hash(model: GrayReleaseModel, stages: Sequence[Stage]) -> None:
    kind = model.hash.kind if isinstance(model.hash, HashModel) else model.hash
    wrong = (each for each in stages if any(percent % 1 for percent in each.weights.values()))
    if kind == "unleash" and (stage := next(wrong, None)):
        text = f"{next(iter(stage.weights.values())):g} percent is not whole, as hash: unleash demands"
        raise FieldError("release-weight-value", f"steps.{stage.item - 1}", text, "write whole percents")


PARTS: dict[str, Callable[[GrayReleaseModel], Any]] = {
    "analysis": _analysis,
    "bake": _bake,
    "hooks": _hooks,
    "stages": _stages,
}


def plan(model: GrayReleaseModel, parts: dict[str, Any]) -> Plan | None:
    """The value, of parts that were read by `PARTS`; None without `steps`."""
    if model.steps is None:
        return None
    seconds, holdback = parts["bake"]
    return Plan(
        stages=parts["stages"],
        items=len(auto_steps() if model.steps == "auto" else model.steps),
        shares=shares(model),
        bake=seconds,
        holdback=holdback,
        promote=model.promote or "auto",
        on_failure=model.on_failure or "rollback",
        hooks=parts["hooks"],
    )


def without_effect(model: GrayReleaseModel) -> Iterator[str]:
    """Fields that say nothing without `steps`."""
    if model.steps is None:
        names = ("analysis", "bake", "promote", "on_failure", "hooks")
        yield from (name for name in names if name in model.model_fields_set)


def plan_of(fields: dict[str, Any]) -> Plan:
    """The plan of some fields of a release with one gray variant, outside of any document.

    Raises:
        FieldError: a value is wrong.
    """
    try:
        model = GrayReleaseModel.model_validate({"gray": ["gray"], **fields})
    except ValidationError as exc:
        raise FieldError("wrong-type", "steps", f"{exc.error_count()} fields are of a wrong type") from None
    found = plan(model, {name: read(model) for name, read in PARTS.items()})
    if found is None:
        raise FieldError("release-steps", "steps", "there are no steps", "write steps: auto")
    return found
