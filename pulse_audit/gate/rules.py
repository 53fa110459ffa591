"""``rules.yaml``: what a run is held to, checked before anything is judged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from pulse_audit.documents import read_yaml
from pulse_audit.fairness.divergence import DIVERGENCES, Divergence
from pulse_audit.metrics.definition import MetricDefinition
from pulse_audit.metrics.group_metrics import OUTCOME_METRICS
from pulse_audit.metrics.registry import BY_NAME, RecordedMetric, metrics_of_run
from pulse_audit.names import nearest
from pulse_audit.types import InputError

RuleStatistic: TypeAlias = Literal["max_gap", "min_ratio", "worst_group", "max_abs", "mean"]
#: Retention after correction for the attribute model's errors.
CORRECTED = "retention_corrected"
#: Share of outputs with each apparent group.
SHARES = "output_share"
#: Metrics of apparent groups: by themselves they say as much of the attribute model as of the arm.
ATTRIBUTE_RATES = (CORRECTED, SHARES, *(metric.name for metric in OUTCOME_METRICS))
#: One number a face, of all its draws: how far their apparent groups differ.
FACE_RATES = ("flip_rate", "entropy")
#: Divergences of all draws from where groups are treated alike: property, and divergences that
#: have bounds.
BOUNDED: Mapping[str, tuple[Divergence, ...]] = {
    "rdp": ("chi2", "tv", "chebyshev"),
    "pr": ("chi2", "tv", "chebyshev"),
    "cpr": ("tv", "chebyshev"),
    "spe": ("tv", "chebyshev"),
}
DIVERGENCE_OF: Mapping[str, tuple[str, Divergence]] = {
    f"{name}_{divergence}": (name, divergence)
    for name, divergences in BOUNDED.items()
    for divergence in divergences
}
#: Distances between the features of outputs and of originals.
DISTANCES = ("kid", "fid")
#: One number of a whole set of draws.
SET_METRICS = (*DIVERGENCE_OF, *DISTANCES)
#: Metrics that need an apparent group of the outputs.
OF_GROUPS = (*ATTRIBUTE_RATES, *FACE_RATES, *DIVERGENCE_OF)
MOST_RULES = 200
#: Rules that are shipped, explained in their comments.
SHIPPED = Path(__file__).resolve().parents[1] / "rules"
_KINDS = ("at_most", "at_least", "no_worse_than_baseline_by")
Text = Annotated[str, Field(min_length=1, max_length=200)]
# No text and no truth value is taken for a number.
Limit = Annotated[float, Field(allow_inf_nan=False, strict=True)]


class Rule(BaseModel):
    """One rule: a statistic of a metric over groups, and its limit.

    ``statistic``: ``max_gap`` (largest less smallest group), ``min_ratio`` (smallest over largest),
    ``worst_group``, ``max_abs`` (largest distance of a group from 0), ``mean`` (of the whole
    sample, or of ``group``). Exactly one limit: ``at_most``, ``at_least``, or
    ``no_worse_than_baseline_by``. ``arm`` is a name or a glob; ``condition`` and ``scale`` choose
    among those of the run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: Text
    statistic: RuleStatistic
    group_by: Text | None = None
    group: Text | None = None
    at_most: Limit | None = None
    at_least: Limit | None = None
    no_worse_than_baseline_by: Limit | None = None
    arm: Text | None = None
    condition: Text | None = None
    scale: Annotated[int, Field(strict=True, ge=1)] | None = None

    @model_validator(mode="after")
    def _one_limit(self) -> Rule:
        given = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"needs exactly one limit of {', '.join(_KINDS)}, not {found}")
        kind = given[0]
        wanted = {"max_gap": "at_most", "max_abs": "at_most", "min_ratio": "at_least"}
        if kind != _KINDS[2] and wanted.get(self.statistic, kind) != kind:
            raise ValueError(f"{self.statistic} takes {wanted[self.statistic]}, not {kind}")
        if self.statistic != "mean" and self.group_by is None:
            raise ValueError(f"{self.statistic} compares groups: it needs group_by")
        if self.group is not None and (self.statistic != "mean" or self.group_by is None):
            raise ValueError("group chooses one group of group_by, for the statistic mean")
        # a mean may lie below 0; distances, ratios and margins do not
        may_be_negative = self.statistic in ("mean", "worst_group") and kind != _KINDS[2]
        if self.limit < 0 and not may_be_negative:
            raise ValueError(f"{kind}: {self.limit:g} is below 0")
        if self.statistic == "min_ratio" and self.limit > 1:
            raise ValueError(f"{kind}: a ratio is at most 1, not {self.limit:g}")
        return self

    @property
    def limit(self) -> float:
        """The number of the limit."""
        return float(next(v for kind in _KINDS if (v := getattr(self, kind)) is not None))

    @property
    def against_baseline(self) -> bool:
        """Whether the rule is about the difference from a baseline."""
        return self.no_worse_than_baseline_by is not None

    @property
    def quantity(self) -> tuple[Any, ...]:
        """What the rule is about: rules of equal quantity are about the same number."""
        where = self.arm, self.condition, self.scale
        columns = (self.metric, self.statistic, self.group_by, self.group)
        return (*columns, *where, self.against_baseline)

    @property
    def text(self) -> str:
        """The rule in one line."""
        kind = next(kind for kind in _KINDS if getattr(self, kind) is not None)
        by = f" by {self.group_by}" if self.group_by else ""
        one = f" ({self.group})" if self.group else ""
        return f"{self.metric}{by}{one}: {self.statistic} {kind} {self.limit:g}"


class Rules(BaseModel):
    """All rules of a file. ``alpha`` is the error rate of all verdicts together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # resamples tell nothing of levels that are far smaller
    alpha: Annotated[float, Field(strict=True, ge=1e-4, lt=0.5, allow_inf_nan=False)] = 0.05
    rules: Annotated[list[Rule], Field(min_length=1, max_length=MOST_RULES)]

    @property
    def against_baseline(self) -> bool:
        """Whether some rule needs a baseline."""
        return any(rule.against_baseline for rule in self.rules)


def shipped_rules() -> dict[str, Path]:
    """Files of rules that come with the package, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def read_rules(path: Path) -> Rules:
    """Read a ``rules.yaml``, or shipped rules by their name.

    Raises
    ------
    InputError
        If it is missing, no plain YAML, or says something that no rule can mean.
    """
    shipped = shipped_rules()
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        if str(path) not in shipped:
            hint = nearest(str(path), [*shipped])
            raise InputError(f"{path}: neither a file nor shipped rules{hint}") from None
        content = read_yaml(shipped[str(path)])
    return check_rules(content, path)


def check_rules(content: Any, where: Path | str) -> Rules:
    """Check plain values, and rules against each other; errors as `read_rules`."""
    if not isinstance(content, dict):
        raise InputError(f"{where}: not rules: wanted `rules:` and a list of rules")
    try:
        rules = Rules.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{where}: {_first_error(error.errors()[0])}") from None
    seen: dict[tuple[Any, ...], dict[str, int]] = {}
    for number, rule in enumerate(rules.rules, 1):
        # Two limits of one kind for one quantity: one of them says nothing, or neither is meant.
        kinds = seen.setdefault(rule.quantity, {})
        kind = next(kind for kind in _KINDS if getattr(rule, kind) is not None)
        if kind in kinds:
            raise InputError(
                f"{where}: rules {kinds[kind]} and {number} both limit "
                f"{rule.text.split(':')[0]} by {kind}; keep one"
            )
        kinds[kind] = number
        if "at_least" in kinds and "at_most" in kinds:
            low = rules.rules[kinds["at_least"] - 1].limit
            high = rules.rules[kinds["at_most"] - 1].limit
            if low > high:
                raise InputError(
                    f"{where}: rules {kinds['at_least']} and {kinds['at_most']} contradict each "
                    f"other: {rule.metric} at least {low:g} and at most {high:g}"
                )
    return rules


def _first_error(error: ErrorDetails) -> str:
    """One entry at fault, with the nearest known key."""
    places = [part for part in error["loc"] if part != "rules"]
    rule = next((f"rule {part + 1}" for part in places if isinstance(part, int)), "")
    key = next((str(part) for part in reversed(places) if isinstance(part, str)), "")
    known = list(Rule.model_fields if rule else Rules.model_fields)
    place = ": ".join(part for part in (rule, key) if part)
    if error["type"] == "extra_forbidden":
        return f"{rule + ': ' if rule else ''}unknown key {key!r}{nearest(key, known)}"
    if error["type"] == "missing":
        return f"{place} is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def metric_of(rule: Rule, recorded: Mapping[str, RecordedMetric], where: str) -> MetricDefinition:
    """Look up a rule's metric among those of a run, and check its limit against the range.

    Raises
    ------
    InputError
        If it is unknown, has no value a draw, or the rule cannot be about it.
    """
    known = {metric.name: metric for metric in (*OUTCOME_METRICS, *metrics_of_run(recorded))}
    derived = (CORRECTED, SHARES, *FACE_RATES, *SET_METRICS)
    known |= {name: BY_NAME[name] for name in derived}
    metric = known.get(rule.metric) or BY_NAME.get(rule.metric)
    if metric is None:
        raise InputError(f"{where}: unknown metric {rule.metric!r}{nearest(rule.metric, [*known])}")
    if (
        metric.name.partition("_")[0] in BOUNDED
        and metric.name not in derived
        and (metric.name.partition("_")[2] in DIVERGENCES)
    ):
        raise InputError(
            f"{where}: {metric.name} has no bound whose error rate holds; those that have: "
            f"{', '.join(DIVERGENCE_OF)}"
        )
    if metric.name == "gpi_kid":
        raise InputError(f"{where}: gpi_kid is the statistic max_gap of kid: use metric kid")
    if (
        metric.kind == "column"
        or metric.statistic is not None
        or (metric.kind == "derived" and metric.name not in derived)
    ):
        raise InputError(
            f"{where}: no rule can be judged on {metric.name}: it is neither a number of draws or "
            "faces nor a distance of all of them with an interval; rules take retention_corrected, "
            "retention, flip_rate, kid, rdp_chi2 and others (docs/gate-your-model.md)"
        )
    if metric.name in SET_METRICS:
        _check_set(rule, where)
    _check_direction(rule, metric, where)
    return metric


def _check_set(rule: Rule, where: str) -> None:
    """Refuse what a number of a whole set of draws has not: InputError."""
    takes = ("mean", "worst_group", "max_gap") if rule.metric == "kid" else ("mean",)
    if rule.statistic not in takes:
        raise InputError(
            f"{where}: {rule.metric} is a number of all draws together: it takes the statistic "
            f"{' or '.join(takes)}, not {rule.statistic}"
        )
    if rule.group is not None and rule.metric != "kid":
        raise InputError(f"{where}: {rule.metric} is of the whole sample: it takes no group")
    if rule.against_baseline:
        raise InputError(
            f"{where}: {rule.metric} has no interval of its difference from a baseline: use at_most"
        )


def higher_is_better(rule: Rule, metric: MetricDefinition) -> bool:
    """Which side of a limit is the good one: as the limit says, else as the metric does."""
    if rule.at_least is not None:
        return True
    return False if rule.at_most is not None else metric.direction == "higher"


def _check_direction(rule: Rule, metric: MetricDefinition, where: str) -> None:
    """Refuse rules that ask for what the metric has not: InputError."""
    if metric.name == SHARES and not (rule.statistic == "max_abs" and rule.against_baseline):
        raise InputError(
            f"{where}: {SHARES} takes max_abs with no_worse_than_baseline_by: the largest rise of "
            "an apparent group's share"
        )
    directed = metric.direction in ("higher", "lower")
    if rule.statistic in ("worst_group", "mean") and rule.against_baseline and not directed:
        raise InputError(
            f"{where}: neither direction of {metric.name} is worse; against a baseline use max_abs "
            "or max_gap"
        )
    if rule.statistic == "worst_group" and not directed:
        raise InputError(f"{where}: {metric.name} has no worst group; use max_abs or max_gap")
    wanted = {"higher": "at_least", "lower": "at_most"}.get(metric.direction)
    is_absolute = rule.statistic == "worst_group" and not rule.against_baseline
    if is_absolute and getattr(rule, str(wanted)) is None:
        raise InputError(
            f"{where}: the worst group of {metric.name} has the "
            f"{'lowest' if metric.direction == 'higher' else 'highest'} value: use {wanted}"
        )
    low, high = metric.lower_bound, metric.upper_bound
    if metric.unit == "%":
        low, high = 0.0, 1.0
    if rule.statistic in ("max_gap", "max_abs") or rule.against_baseline:
        high = high - low if rule.statistic != "max_abs" else max(abs(low), abs(high))
        low = 0.0
    if rule.statistic != "min_ratio" and not low <= rule.limit <= high:
        share = " (shares are from 0 to 1: 20 % is 0.2)" if metric.unit == "%" else ""
        ends = f"{low:g} to {high:g}" if math.isfinite(high) else f"{low:g} upward"
        raise InputError(f"{where}: the limit {rule.limit:g} is outside {ends}{share}")


def choose_arms(rule: Rule, arms: Sequence[str], judged: Sequence[str], where: str) -> list[str]:
    """Arms that a rule is about.

    Parameters
    ----------
    rule : Rule
    arms : sequence of str
        All of the run.
    judged : sequence of str
        Those that a rule without ``arm`` is about.

    Raises
    ------
    InputError
        If the rule's ``arm`` is none of them.
    """
    if rule.arm is None:
        chosen = list(judged)
    else:
        chosen = [arm for arm in arms if arm == rule.arm or fnmatchcase(arm, rule.arm)]
    if not chosen:
        asked = rule.arm or "any but nearest, bicubic, lanczos"
        raise InputError(f"{where}: no arm {asked!r}{nearest(asked, list(arms))}")
    return chosen
