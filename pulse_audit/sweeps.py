"""Sweeps: the settings of arms that one run varies, and the arms that this makes. No torch.

A sweep is a grid: every combination of the values of its settings is a variant of every arm that
has these settings, named by them: ``pulse:faces-balanced~eps=0.001,steps=50``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pulse_audit.names import nearest
from pulse_audit.types import InputError

Value: TypeAlias = float | int | str
#: Values of settings, in the order of the sweep.
Point: TypeAlias = tuple[tuple[str, Value], ...]

#: Stands between the name of an arm and the settings of a variant.
VARIANT = "~"
#: Combinations of a sweep, at most.
MAX_POINTS = 64


@dataclass(frozen=True)
class Setting:
    """A setting that arms have, and the values that it takes: numbers in a range, or words."""

    name: str
    #: Kinds of arms that have it, as of `pulse_audit.names.ArmReference`.
    kinds: tuple[str, ...]
    #: Smallest and largest number, of which the smallest may be excluded; None: words alone.
    limits: tuple[float, float] | None
    meaning: str
    words: tuple[str, ...] = ()
    whole: bool = False
    excluding_lowest: bool = False

    @property
    def form(self) -> str:
        """What it takes, in words."""
        if self.limits is None:
            return f"one of {', '.join(self.words)}"
        low, high = self.limits
        start = "above" if self.excluding_lowest else "from"
        return f"a {'whole ' * self.whole}number {start} {low:g} to {high:g}"

    def read(self, given: object) -> Value:
        """Read a value, from a YAML file or a command line.

        Raises
        ------
        InputError
            If it is not of the setting's form.
        """
        wrong = InputError(f"{self.name}: {str(given)[:80]} is not {self.form}")
        if isinstance(given, bool) or not isinstance(given, str | int | float):
            raise wrong
        if self.limits is None:
            if not _is_word(str(given), self.words):
                raise wrong
            return str(given)
        try:
            number = float(given)
        except (ValueError, OverflowError):
            raise wrong from None
        low, high = self.limits
        # NaN is within no limits.
        if not low <= number <= high or (self.excluding_lowest and number == low):
            raise wrong
        if not self.whole:
            return number
        if number % 1:
            raise wrong
        return int(number)


def _is_word(text: str, words: Sequence[str]) -> bool:
    """Whether a text is one of the words; ``nll:WEIGHT`` stands for any number above 0."""
    if text in words:
        return True
    name, _, number = text.partition(":")
    try:
        return f"{name}:WEIGHT" in words and 0 < float(number) < math.inf
    except ValueError:
        return False


#: Every setting that a sweep may vary, by its name; those of PULSE are of the search.
SETTINGS: Mapping[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting(
            "truncation", ("pulse",), (0, 2),
            "radius of the spheres that the latents are searched on, over that of PULSE: 1 is "
            "PULSE, less is nearer to the generator's average face",
            excluding_lowest=True,
        ),
        Setting(
            "eps", ("pulse", "posterior"), (0, 1),
            "largest error (MSE, [0, 1] scale) of a feasible output, and floor of the loss",
            excluding_lowest=True,
        ),
        Setting(
            "diffusion_steps", ("dps", "ddnm"), (2, 100_000),
            "noise levels of a diffusion model that a draw visits", whole=True,
        ),
        Setting(
            "dps_step", ("dps",), (0, 1000),
            "size of a step of DPS toward the input, in the public code's convention (0.3)",
            excluding_lowest=True,
        ),
        Setting("steps", ("pulse",), (1, 10_000), "images that a search renders", whole=True),
        Setting(
            "learning_rate", ("pulse",), (0, 100), "of the search, before its schedule",
            excluding_lowest=True,
        ),
        Setting(
            "prior", ("pulse",), None,
            "sphere: PULSE, norms of latents and noise are kept; none: they are free; nll:WEIGHT: "
            "free, and -log p of them is added to the loss",
            words=("sphere", "none", "nll", "nll:WEIGHT"),
        ),
        Setting(
            "noise", ("pulse",), None,
            "the generator's noise maps: zero, fixed as drawn, or trainable (PULSE)",
            words=("zero", "fixed", "trainable"),
        ),
        Setting(
            "vary", ("pulse",), None,
            "what differs between the draws of a face: the whole start (PULSE), or the noise maps "
            "alone, from the latents of its first draw",
            words=("start", "noise"),
        ),
    )
}  # fmt: skip


def read_sweep(given: Mapping[object, object]) -> dict[str, list[Value]]:
    """Check the settings of a sweep and the values of each, a list or one value.

    Raises
    ------
    InputError
        If a setting is unknown, a value not of its form or given twice, or there are more than
        `MAX_POINTS` combinations.
    """
    sweep: dict[str, list[Value]] = {}
    for key, values in given.items():
        setting = SETTINGS.get(str(key))
        if setting is None:
            raise InputError(f"unknown setting {str(key)[:80]!r}{nearest(str(key), [*SETTINGS])}")
        listed = values if isinstance(values, list) else [values]
        read = [setting.read(value) for value in listed]
        if not read:
            raise InputError(f"{key}: give at least one value")
        if len(set(read)) < len(read):
            raise InputError(f"{key}: a value is given twice")
        sweep[setting.name] = read
    points = math.prod(map(len, sweep.values()))
    if points > MAX_POINTS:
        raise InputError(f"{points:,} combinations of settings, at most {MAX_POINTS}")
    return sweep


def parse_sweep(texts: Iterable[str]) -> dict[str, list[Value]]:
    """Read ``SETTING=VALUE,VALUE`` of a command line, one a setting; errors as `read_sweep`."""
    given: dict[object, object] = {}
    for text in texts:
        name, separator, values = text.partition("=")
        if not separator or name in given:
            raise InputError(f"--sweep {text}: give SETTING=VALUE,VALUE, each setting once")
        given[name] = [value.strip() for value in values.split(",") if value.strip()]
    try:
        return read_sweep(given)
    except InputError as error:
        raise InputError(f"--sweep {error}") from None


def points(sweep: Mapping[str, Sequence[Value]], kind: str) -> list[Point]:
    """Return the combinations of the settings that a kind of arm has; one empty one of none."""
    own = {name: values for name, values in sweep.items() if kind in SETTINGS[name].kinds}
    return [tuple(zip(own, values, strict=True)) for values in itertools.product(*own.values())]


def variant_name(arm: str, point: Point) -> str:
    """Return the name of an arm with settings; without any, its own."""
    return f"{arm}{VARIANT}{point_name(point)}" if point else arm


def point_name(point: Point) -> str:
    """Write settings with their values: ``eps=0.001,steps=50``."""
    return ",".join(f"{name}={value_name(value)}" for name, value in point)


def value_name(value: Value) -> str:
    """Write a value as users do."""
    return value if isinstance(value, str) else f"{value:g}"
