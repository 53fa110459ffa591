"""What the style-based networks have in common: mapping, precision, frozen loading.

State dicts use the key names of the stylegan2-ada-pytorch and stylegan3 repositories, for the
published files and for our own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from pulse_audit.generators.mapping import MappingNetwork
from pulse_audit.types import InputError

Noise = str | Sequence[Tensor]
# ``mapping`` and ``synthesis`` are methods here, so the modules go by other names.
PUBLIC = {"map.": "mapping.", "syn.": "synthesis."}


class MappedNetwork(nn.Module):
    """A synthesis network behind a mapping network.

    ``dtype`` is the type of the activations in the synthesis network: float32 or float64 for
    exact results, bfloat16 for speed. Weights, styles and images never leave float32 in the
    bfloat16 mode, so that going back loses nothing.
    """

    resolution: int
    num_ws: int
    z_dim: int
    w_dim: int
    c_dim: int
    noise_shapes: tuple[tuple[int, int], ...] = ()
    family: str
    derived: tuple[str, ...] = ()
    map: MappingNetwork
    syn: nn.ModuleDict

    def __init__(self) -> None:
        super().__init__()
        self.dtype = torch.float32

    def mapping(
        self,
        z: Tensor,
        labels: Tensor | None = None,
        truncation: float = 1.0,
        cutoff: int | None = None,
    ) -> Tensor:
        """Map latents to styles.

        Parameters
        ----------
        z : Tensor
            Gaussian latents (n, z_dim).
        labels : Tensor, optional
            One-hot classes (n, c_dim), needed exactly where ``c_dim`` is not 0.
        truncation : float
            1 leaves w alone, 0 gives the average.
        cutoff : int, optional
            Number of leading styles to truncate; default all.

        Returns
        -------
        Tensor
            Styles (n, num_ws, w_dim).

        Raises
        ------
        InputError
            If shapes do not fit or labels are missing or not wanted.
        """
        out: Tensor = self.map(z, labels, truncation, cutoff)
        return out

    def to(  # type: ignore[override]
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move to a device and choose the precision of the activations."""
        if dtype == torch.float16:
            raise InputError("precision: float16 overflows in these networks; choose bfloat16")
        if dtype is not None:
            self.dtype = dtype
            super().to(dtype=torch.float32 if dtype == torch.bfloat16 else dtype)
        if device is not None:
            super().to(device=device)
        return self

    def checked_styles(self, w: Tensor) -> Tensor:
        """Return w (n, num_ws, w_dim) in the type of the weights; InputError if it does not fit."""
        if w.ndim != 3 or w.shape[1:] != (self.num_ws, self.w_dim):
            raise InputError(
                f"synthesis: styles are {tuple(w.shape)}, need to be "
                f"(n, {self.num_ws}, {self.w_dim})"
            )
        return w.to(self.map.w_avg.dtype)

    def weights(self) -> dict[str, Tensor]:
        """Return every tensor under its public key (``mapping.*``, ``synthesis.*``)."""
        return {PUBLIC[key[:4]] + key[4:]: value for key, value in self.state_dict().items()}

    @classmethod
    def _checked(cls, make: Callable[[], Self], state: Mapping[str, Tensor]) -> Self:
        """Fill and freeze the network that ``make`` makes, once every shape is known to fit.

        A missing average of w is estimated, ``derived`` tensors are computed anew.
        """
        with torch.device("meta"):
            shapes = make().weights()
        optional = {k: v for k, v in shapes.items() if k.endswith((*cls.derived, ".w_avg"))}
        check_state(shapes, {**optional, **state})
        network = make()
        own = {
            key: state.get(PUBLIC[key[:4]] + key[4:], v) for key, v in network.state_dict().items()
        }
        network.load_state_dict(own)
        if "mapping.w_avg" not in state:
            network.map.estimate_average()
        return network.eval().requires_grad_(False)


def needed(state: Mapping[str, Tensor], key: str) -> Tensor:
    """Return ``state[key]``, or raise InputError."""
    if key not in state:
        raise InputError(f"checkpoint: the tensor {key} is missing")
    return state[key]


def mapping_widths(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Widths of the mapping network, from its input to w."""
    first = needed(state, "mapping.fc0.weight").shape[-1]
    count = sum(re.fullmatch(r"mapping\.fc\d+\.weight", key) is not None for key in state)
    layers = [needed(state, f"mapping.fc{index}.weight") for index in range(count)]
    return (first, *(layer.shape[0] for layer in layers))


def noise_maps(noise: Noise, shapes: Sequence[tuple[int, int]], w: Tensor) -> list[Tensor]:
    """Draw "random" noise for styles w (n, ...), or check the maps that were given."""
    if noise == "random":
        return [torch.randn(len(w), 1, *s, device=w.device, dtype=w.dtype) for s in shapes]
    if isinstance(noise, str):
        raise InputError(f"noise: {noise!r} is unknown; give const, none, random or a list of maps")
    if len(noise) != len(shapes):
        raise InputError(f"noise: {len(noise)} maps for {len(shapes)} layers")
    for given, shape in zip(noise, shapes, strict=True):
        if given.shape not in {(len(w), 1, *shape), (1, 1, *shape)}:
            raise InputError(
                f"noise: a map is {tuple(given.shape)}, needs to be {(len(w), 1, *shape)}"
            )
    return list(noise)


def check_state(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raise InputError, in one line, on the first tensor missing, unknown or of another shape."""
    for key in sorted(expected.keys() | given.keys()):
        if key not in given:
            raise InputError(f"checkpoint: the tensor {key} is missing")
        if key not in expected:
            raise InputError(f"checkpoint: the tensor {key} has no place in this network")
        if expected[key].shape != given[key].shape:
            raise InputError(
                f"checkpoint: the tensor {key} is {tuple(given[key].shape)}, "
                f"expected {tuple(expected[key].shape)}"
            )
