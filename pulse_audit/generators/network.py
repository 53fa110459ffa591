"""What a style network is: z through a mapping network to styles w, and w to images.

State dicts use the key names of the stylegan2-ada-pytorch and stylegan3 repositories, for the
published files and for our own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import TypeIs

from pulse_audit.generators.mapping import StyleMapping
from pulse_audit.types import InputError

Noise = str | Sequence[Tensor]
# ``mapping`` and ``synthesis`` are methods here, so the modules go by other names.
PUBLIC = {"map.": "mapping.", "syn.": "synthesis."}


class StyleNetwork(Protocol):
    """What the search asks of a style-based generator; StyleGAN 1, 2 and 3 are such networks.

    ``num_ws`` is the number of styles of an image; ``z_dim``, ``w_dim`` and ``c_dim`` are the sizes
    of z, of w and of the one-hot label (0: no classes). ``noise_shapes`` are height and width of
    each noise map, empty for families without noise. ``map`` is the mapping network (None: not
    loaded), whose tensors are the key under which its Gaussian fit is cached.
    """

    family: str
    resolution: int
    num_ws: int
    z_dim: int
    w_dim: int
    c_dim: int
    noise_shapes: tuple[tuple[int, int], ...]

    @property
    def map(self) -> nn.Module | None:
        """The mapping network, None where it was not loaded."""
        ...

    def mapping(self, z: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Map z (n, z_dim) and one-hot labels (n, c_dim) to w (n, num_ws, w_dim)."""
        ...

    def synthesis(self, w: Tensor, noise: Noise = "const") -> Tensor:
        """Render w (n, num_ws, w_dim) to raw images (n, 3, R, R), about [-1, 1].

        ``noise`` is ``"const"``, ``"none"``, ``"random"`` or one map (n, 1, h, w) per entry of
        ``noise_shapes``.
        """
        ...

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move to a device and choose the type of the feature maps."""
        ...


def is_style_network(candidate: object) -> TypeIs[StyleNetwork]:
    """Whether an object offers what `StyleNetwork` asks for; see `types.is_generator`."""
    names = "family resolution num_ws z_dim w_dim c_dim noise_shapes map mapping synthesis to"
    return all(hasattr(candidate, name) for name in names.split())


class MappedNetwork(nn.Module):
    """A synthesis network behind a mapping network, as `StyleNetwork` describes it.

    ``dtype`` is the type of the activations in the synthesis network: float32 or float64 for
    exact results, bfloat16 for speed. Weights, styles and images never leave float32 in the
    bfloat16 mode, so that going back loses nothing. ``derived`` are the endings of the tensors
    that are computed anew where a file does not hold them.
    """

    resolution: int
    num_ws: int
    z_dim: int
    w_dim: int
    c_dim: int
    noise_shapes: tuple[tuple[int, int], ...] = ()
    family: str
    derived: tuple[str, ...] = ()
    map: StyleMapping | None
    syn: nn.Module

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
        """Map z (n, z_dim) to styles (n, num_ws, w_dim).

        One-hot ``labels`` (n, c_dim) are needed exactly where ``c_dim`` is not 0. The first
        ``cutoff`` styles (default all) are truncated: 1 leaves them alone, 0 gives the average.
        InputError if shapes do not fit, or the mapping network was not loaded.
        """
        if self.map is None:
            raise InputError(
                f"this {self.family} was loaded without its mapping network: give mapping.pt too, "
                "or search with a gaussian fit (gaussian_fit.pt), which does not need it"
            )
        out: Tensor = self.map(z, labels, truncation, cutoff)
        return out

    def to(  # type: ignore[override]
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move to a device and choose the precision of the activations."""
        if dtype == torch.float16:
            raise InputError("precision: float16 overflows in these networks; choose bfloat16")
        # bfloat16 is for the activations only: the weights stay in float32.
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
        return w.to(next(self.parameters()).dtype)

    def weights(self) -> dict[str, Tensor]:
        """Return every tensor under its public key (``mapping.*``, ``synthesis.*``)."""
        return {PUBLIC[key[:4]] + key[4:]: value for key, value in self.state_dict().items()}

    @classmethod
    def filled(cls, make: Callable[[], Self], state: Mapping[str, Tensor]) -> Self:
        """Fill and freeze the network that ``make`` makes, once every shape is known to fit.

        A missing average of w is estimated, ``derived`` tensors are computed anew.

        Raises
        ------
        InputError
            In one line, naming the first tensor that is missing, unknown or of another shape.
        """
        # On the meta device nothing is allocated: a file may declare shapes of any size.
        with torch.device("meta"):
            expected = make().weights()
        optional = {k: v for k, v in expected.items() if k.endswith((*cls.derived, ".w_avg"))}
        tensors = {**optional, **state}
        for key in sorted(expected.keys() | tensors.keys()):
            if key not in tensors:
                raise InputError(f"checkpoint: the tensor {key} is missing")
            if key not in expected:
                raise InputError(f"checkpoint: the tensor {key} has no place in this network")
            if expected[key].shape != tensors[key].shape:
                raise InputError(
                    f"checkpoint: the tensor {key} is {tuple(tensors[key].shape)}, "
                    f"expected {tuple(expected[key].shape)}"
                )
        # Every shape is known to fit, so the memory is that of the file.
        network = make()
        network.load_state_dict(
            {k: state.get(PUBLIC[k[:4]] + k[4:], v) for k, v in network.state_dict().items()}
        )
        if network.map is not None and "mapping.w_avg" not in state:
            network.map.estimate_average()
        return network.eval().requires_grad_(False)


def noise_maps(
    noise: Noise, shapes: Sequence[tuple[int, int]], w: Tensor, stored: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    """Return one noise map for each layer of ``shapes``, or None for each.

    ``noise`` is ``"const"`` for the ``stored`` maps, ``"none"``, ``"random"`` for maps from the
    global random state, or the maps themselves, (n or 1, 1, h, w) for styles w (n, ...).
    InputError if the name is unknown or the maps do not fit.
    """
    if noise == "none":
        return [None] * len(shapes)
    if noise == "const":
        return stored
    if noise == "random":
        return [torch.randn(len(w), 1, *s, device=w.device, dtype=w.dtype) for s in shapes]
    if isinstance(noise, str):
        raise InputError(f"noise: {noise!r} is unknown; give const, none, random or a list of maps")
    # One map a layer, for each image or one for all.
    if len(noise) != len(shapes):
        raise InputError(f"noise: {len(noise)} maps for {len(shapes)} layers")
    for layer_map, shape in zip(noise, shapes, strict=True):
        if layer_map.shape not in {(len(w), 1, *shape), (1, 1, *shape)}:
            raise InputError(
                f"noise: a map is {tuple(layer_map.shape)}, needs to be {(len(w), 1, *shape)}"
            )
    return noise


def to_colours(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve features (n, c, h, w) with a weight (3, c, 1, 1), as a product of matrices.

    The gradient of the features is channels-last, whatever that of the colours is: in the other
    layout every pass and convolution before this one takes several times as long on a CPU.
    """
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


class StateReader(dict[str, Tensor]):
    """A state dict that remembers which of its tensors were read, by ``[]`` and nothing else.

    A tensor that a layout does not know changes the images in a way that nobody notices, so
    `refuse_unread` ends the reading of every layout.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__(state)
        self.read = set[str]()

    def __getitem__(self, key: str) -> Tensor:
        """Return a tensor and remember that it was read."""
        self.read.add(key)
        return super().__getitem__(key)

    def refuse_unread(self, unused: str = "") -> None:
        """Raise InputError naming the tensors not read, but for names that match ``unused``."""
        unread = [k for k in self if k not in self.read and not re.fullmatch(unused, k)]
        if unread:
            more = f" and {len(unread) - 3} more" if len(unread) > 3 else ""
            raise InputError(
                f"checkpoint: unknown tensors: {', '.join(unread[:3])}{more}; "
                "this layout is not the one of a network known here"
            )


def needed(state: Mapping[str, Tensor], key: str, *shape: int | None) -> Tensor:
    """Return ``state[key]``; InputError if it is missing or of another shape (None: any side)."""
    if key not in state:
        raise InputError(f"checkpoint: the tensor {key} is missing")
    value = state[key]
    sides = tuple(value.shape)
    fits = len(sides) == len(shape) and all(
        wanted in (None, side) for wanted, side in zip(shape, sides, strict=True)
    )
    if shape and not (fits and value.numel()):
        wanted = ", ".join("any" if side is None else str(side) for side in shape)
        raise InputError(f"checkpoint: the tensor {key} has the shape {sides}, expected ({wanted})")
    return value


def numbered(
    state: Mapping[str, Tensor], pattern: str, what: str = "layers", first: int = 0, most: int = 19
) -> int:
    """Count the layers whose keys match a pattern with their number in group 1.

    InputError if the numbers are not ``first``, ``first`` + 1, ..., or there are over ``most``,
    the number of layers of a network of 2048 px.
    """
    numbers = sorted({int(m[1]) for key in state if (m := re.fullmatch(pattern, key))})
    if numbers != list(range(first, first + len(numbers))) or len(numbers) > most:
        wanted = f"{first}, {first + 1}, {first + 2}, ..."
        raise InputError(f"checkpoint: {what} {numbers[:most]}, expected {wanted}")
    return len(numbers)


def mapping_widths(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Widths of the mapping network, from its input to w."""
    # (fc0's input, fc0's output, fc1's output, ..., w_dim)
    first = needed(state, "mapping.fc0.weight").shape[-1]
    count = sum(re.fullmatch(r"mapping\.fc\d+\.weight", key) is not None for key in state)
    layers = [needed(state, f"mapping.fc{index}.weight") for index in range(count)]
    return (first, *(layer.shape[0] for layer in layers))
