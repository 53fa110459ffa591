"""Metrics of skin tone, one entry each. No torch at import.

How tones are measured is the matter of `pulse_audit.faces.skin`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pulse_audit.metrics.definition import FloatArray, MetricDefinition, mean, numbers

if TYPE_CHECKING:
    import pandas as pd

#: How outputs and originals are compared.
SAME_PIXELS = "on the same pixels, the skin of the original"
EACH_BY_ITSELF = "each image by itself as in Thong et al. (2023): blur alone makes it darker"
NO_SKIN = "no skin was found in any image (greyscale photos have no skin colour)"


def shift(samples: pd.DataFrame, quantity: str) -> FloatArray:
    """Output minus original."""
    return numbers(samples, f"sr_{quantity}") - numbers(samples, f"hr_{quantity}")


def wrapped(degrees: FloatArray) -> FloatArray:
    """Wrap angles to [-180, 180)."""
    return (degrees + 180.0) % 360.0 - 180.0


def _tone(
    quantity: str,
    title: str,
    unit: str,
    ends: tuple[float, float],
    how: str = SAME_PIXELS,
    **more: Any,
) -> tuple[MetricDefinition, ...]:
    """Level of originals and of outputs, and shift, of a quantity of skin tone.

    ``ends`` are the least and the greatest value of the quantity.
    """
    reads = (f"hr_{quantity}", f"sr_{quantity}")
    levels = [
        mean(
            f"{side}_{quantity}",
            f"{title} of {whose}",
            "mean over the draws of which original and output were both measured",
            "neither",
            unit=unit,
            reads=reads,
            if_empty=NO_SKIN,
            lower_bound=ends[0],
            upper_bound=ends[1],
            # A draw without both has no shift: adding 0 times the shift leaves it out here too.
            from_samples=lambda samples, side=side: (
                numbers(samples, f"{side}_{quantity}") + 0.0 * shift(samples, quantity)
            ),
        )
        for side, whose in (("hr", "originals"), ("sr", "outputs"))
    ]
    change = mean(
        f"{quantity}_shift",
        f"{title} shift",
        f"output minus original, {how}",
        "nearer 0",
        unit=unit,
        reads=reads,
        if_empty=NO_SKIN,
        from_samples=lambda samples: shift(samples, quantity),
        lower_bound=ends[0] - ends[1],
        upper_bound=ends[1] - ends[0],
        in_report=True,
        **more,
    )
    return (*levels, change)


def _hue_shift(quantity: str, title: str, how: str) -> MetricDefinition:
    """Shift of a hue angle; its level on a circle has no mean."""
    return mean(
        f"{quantity}_shift",
        f"{title} shift",
        f"output minus original, the shorter way round the circle, {how}",
        "nearer 0",
        unit="°",
        reads=(f"hr_{quantity}", f"sr_{quantity}"),
        if_empty=NO_SKIN,
        from_samples=lambda samples: wrapped(shift(samples, quantity)),
        lower_bound=-180.0,
        upper_bound=180.0,
        in_report=True,
    )


#: In the order of a summary's rows.
TONE_METRICS: Sequence[MetricDefinition] = (
    *_tone("lightness", "Lightness", "L*", (0.0, 100.0), terminal=("L* shift", 1)),
    *_tone("ita", "ITA", "°", (-90.0, 90.0)),
    _hue_shift("hue", "Hue", SAME_PIXELS),
    mean(
        "monk_shift",
        "Monk shift",
        f"absolute difference of the Monk skin tone class, of ten, {SAME_PIXELS}",
        "lower",
        unit="steps",
        decimals=2,
        reads=("hr_monk", "sr_monk"),
        if_empty=NO_SKIN,
        from_samples=lambda samples: np.abs(shift(samples, "monk")),
        lower_bound=0.0,
        upper_bound=9.0,
        in_report=True,
    ),
    # Apparent skin colour as in earlier work.
    *_tone("apparent_lightness", "Apparent skin lightness", "L*", (0.0, 100.0), EACH_BY_ITSELF),
    _hue_shift("apparent_hue", "Apparent skin hue", EACH_BY_ITSELF),
)
