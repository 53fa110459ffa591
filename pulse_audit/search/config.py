"""The settings of one search, and the presets known by name."""

from __future__ import annotations

from dataclasses import dataclass

from pulse_audit.search.losses import parse_loss
from pulse_audit.search.rules import RULES
from pulse_audit.search.schedule import CORNERS
from pulse_audit.types import InputError

NOISE = ("zero", "fixed", "trainable")
PRIORS = ("sphere", "none", "nll")


@dataclass(frozen=True)
class SearchConfig:
    """Settings of the search; the defaults are those of the official PULSE.

    Parameters
    ----------
    loss : str
        Terms ``Lp`` and ``GEOCROSS`` with weights, see `parse_loss`.
    eps : float
        An image is feasible when the MSE between its DS and the input is at most this, on the
        [0, 1] scale; also the floor of the pixel terms.
    steps : int
        Images rendered and judged; one update lies between two of them.
    optimizer : {"adam", "adamax", "sgd", "sgdm"}
        ``sgdm`` has momentum 0.9.
    learning_rate : float
        Before the schedule's factor.
    schedule : {"linear1cycledrop", "linear1cycle", "fixed"}
        See `learning_rate_factor`.
    noise : {"trainable", "fixed", "zero"}
        What becomes of the noise maps; ``trainable`` optimises the first
        ``trainable_noise_layers`` and leaves the others as drawn.
    trainable_noise_layers : int
        Number of layers, coarsest first.
    bad_noise_layers : str
        Layers whose noise is zero, numbers separated by dots; those a network lacks are ignored.
    tied_latent : bool
        Whether one latent vector serves all layers of an image.
    prior : {"sphere", "none", "nll"}
        ``sphere`` keeps each vector and map at its initial norm, ``none`` lets them go, ``nll``
        lets them go and adds ``nll_weight`` times ``-log p`` of what is optimised.
    nll_weight : float
        With the default the term starts out about as large as ``0.05*GEOCROSS`` does for the
        18 vectors of a 1024 px StyleGAN.
    stop_at_feasibility : bool
        Whether an image leaves the search at its first feasible iterate.

    Raises
    ------
    InputError
        If a value is unknown or out of range.
    """

    loss: str = "100*L2+0.05*GEOCROSS"
    eps: float = 2e-3
    steps: int = 100
    optimizer: str = "adam"
    learning_rate: float = 0.4
    schedule: str = "linear1cycledrop"
    noise: str = "trainable"
    trainable_noise_layers: int = 5
    bad_noise_layers: str = "17"
    tied_latent: bool = False
    prior: str = "sphere"
    nll_weight: float = 1e-3
    stop_at_feasibility: bool = False

    def __post_init__(self) -> None:
        """Check every value."""
        parse_loss(self.loss)
        self.silenced_layers()
        _one_of("optimizer", self.optimizer, tuple(RULES))
        _one_of("schedule", self.schedule, tuple(CORNERS))
        _one_of("noise", self.noise, NOISE)
        _one_of("prior", self.prior, PRIORS)
        _at_least("steps", self.steps, 1)
        _at_least("trainable_noise_layers", self.trainable_noise_layers, 0)
        _at_least("nll_weight", self.nll_weight, 0)
        _above_zero("eps", self.eps)
        _above_zero("learning_rate", self.learning_rate)

    def silenced_layers(self) -> frozenset[int]:
        """Numbers of the layers in ``bad_noise_layers``."""
        try:
            return frozenset(int(part) for part in self.bad_noise_layers.split(".") if part)
        except ValueError:
            raise InputError(
                f'search: bad_noise_layers "{self.bad_noise_layers}" must be numbers separated by '
                "dots, such as 15.16.17"
            ) from None


def _one_of(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f'search: {field} "{value}" is not known; use one of {", ".join(known)}')


def _at_least(field: str, value: float, low: float) -> None:
    if not low <= value < float("inf"):
        raise InputError(f"search: {field} is {value}, it must be at least {low}")


def _above_zero(field: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise InputError(f"search: {field} is {value}, it must be above 0")


PRESETS = {
    "official": SearchConfig(),
    "paper": SearchConfig(eps=1e-3),
    "fast": SearchConfig(stop_at_feasibility=True),
}
