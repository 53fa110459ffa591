"""From z to w: mapping networks, truncation and style mixing.

Key names of the state dict are those of the stylegan2-ada-pytorch and stylegan3 repositories.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pulse_audit.types import InputError

AVERAGE_SAMPLES = 10_000


class FullyConnected(nn.Module):
    """Linear layer with equalised learning rate: stored weights are scaled when used.

    The weight is multiplied by ``lr_multiplier / sqrt(n_in)``, the bias by ``lr_multiplier``.
    """

    def __init__(self, n_in: int, n_out: int, lr_multiplier: float = 1.0, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in))
        self.bias = nn.Parameter(torch.empty(n_out)) if bias else None
        self.weight_gain = lr_multiplier / math.sqrt(n_in)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, n_in) to (n, n_out)."""
        out = F.linear(x, self.weight) * self.weight_gain
        return out if self.bias is None else out + self.bias * self.bias_gain


def normalize_second_moment(x: Tensor) -> Tensor:
    """Scale each row of (n, d) to a mean square of one."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


def truncate(w: Tensor, w_avg: Tensor, truncation: float, cutoff: int | None) -> Tensor:
    """Pull the first ``cutoff`` styles (default all) of (n, num_ws, d) towards the average.

    The truncation trick (Karras et al. 2019, arXiv:1812.04948, appendix B):
    ``w_avg + truncation * (w - w_avg)``.
    """
    # No arithmetic at 1, so that w stays what it is bit for bit.
    if truncation == 1:
        return w
    cutoff = w.shape[1] if cutoff is None else cutoff
    return torch.cat([w_avg.lerp(w[:, :cutoff], truncation), w[:, cutoff:]], dim=1)


def mix_styles(coarse: Tensor, fine: Tensor, crossover: int | Tensor) -> Tensor:
    """Style mixing: the first ``crossover`` styles of ``coarse``, the others of ``fine``.

    Both are (n, num_ws, w_dim); 0 <= crossover <= num_ws. A crossover that is a tensor () on the
    styles' device is not checked, because that would wait for the device.
    """
    within = isinstance(crossover, Tensor) or 0 <= crossover <= coarse.shape[1]
    if coarse.shape != fine.shape or not within:
        raise InputError(
            f"style mixing: cannot cross {tuple(coarse.shape)} with {tuple(fine.shape)} at layer "
            f"{crossover}; give styles of one shape and a layer from 0 to {coarse.shape[1]}"
        )
    layers = torch.arange(coarse.shape[1], device=coarse.device)[:, None]
    return torch.where(layers < crossover, coarse, fine)


class StyleMapping(nn.Module):
    """What mapping networks share: the checks, truncation and the average of w.

    ``z_dim`` and ``c_dim`` are the sizes of the latent and of the one-hot label (0: unconditional),
    ``num_ws`` the styles per image, ``w_avg`` the average of w (w_dim,) in the type of the weights.
    """

    z_dim: int
    c_dim: int
    num_ws: int
    w_avg: Tensor

    def single(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z (n, z_dim) to one style an image (n, w_dim), without truncation."""
        raise NotImplementedError

    def forward(
        self,
        z: Tensor,
        labels: Tensor | None = None,
        truncation: float = 1.0,
        cutoff: int | None = None,
    ) -> Tensor:
        """Map z (n, z_dim) and one-hot labels (n, c_dim) to styles (n, num_ws, w_dim)."""
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise InputError(f"mapping: z is {tuple(z.shape)}, needs to be (n, {self.z_dim})")
        if self.c_dim and labels is None:
            raise InputError(
                f"mapping: this generator is conditional on {self.c_dim} classes; "
                f"give one-hot labels (n, {self.c_dim})"
            )
        if labels is not None and (not self.c_dim or labels.shape != (len(z), self.c_dim)):
            wanted = f"({len(z)}, {self.c_dim})" if self.c_dim else "none: it has no classes"
            raise InputError(
                f"mapping: labels are {tuple(labels.shape)}; the generator takes {wanted}"
            )
        # (n, w_dim) -> (n, num_ws, w_dim): one w for all layers.
        w = self.single(z, labels).unsqueeze(1).repeat(1, self.num_ws, 1)
        return truncate(w, self.w_avg, truncation, cutoff)

    @torch.no_grad()
    def estimate_average(self) -> None:
        """Set ``w_avg`` to the mean of w over a fixed sample of z, for files that store none."""
        source = torch.Generator().manual_seed(0)
        # A conditional network is averaged over all classes alike.
        z = torch.randn(AVERAGE_SAMPLES, self.z_dim, generator=source)
        classes = torch.arange(AVERAGE_SAMPLES) % max(self.c_dim, 1)
        labels = F.one_hot(classes, self.c_dim).float() if self.c_dim else None
        self.w_avg.copy_(self.single(z, labels).mean(dim=0))


class MappingNetwork(StyleMapping):
    """Normalised z (and an embedded class) through leaky-ReLU layers to w (StyleGAN 2 and 3).

    ``hidden`` are the widths between the first input and w (one layer more than widths),
    ``embed_dim`` that of the embedded class, ``lr_multiplier`` the equalised learning rate of the
    layers. ``joint_norm``: z and the embedding are normalised together (StyleGAN 2 in TensorFlow,
    genforce) and not one by one (ADA and later).
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int,
        hidden: tuple[int, ...],
        embed_dim: int,
        lr_multiplier: float = 0.01,
        joint_norm: bool = False,
    ):
        super().__init__()
        self.z_dim, self.c_dim, self.num_ws, self.joint_norm = z_dim, c_dim, num_ws, joint_norm
        widths = [z_dim + (embed_dim if c_dim else 0), *hidden, w_dim]
        if c_dim:
            self.embed = FullyConnected(c_dim, embed_dim, bias=not joint_norm)
        self.num_layers = len(widths) - 1
        for index in range(self.num_layers):
            layer = FullyConnected(widths[index], widths[index + 1], lr_multiplier)
            setattr(self, f"fc{index}", layer)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def single(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z (n, z_dim) to one style an image (n, w_dim), without truncation."""
        x = z.to(self.w_avg.dtype)
        # (n, z_dim), with a class (n, z_dim + embed_dim).
        embedded = None if labels is None else self.embed(labels.to(x.dtype))
        if embedded is not None and self.joint_norm:
            x = normalize_second_moment(torch.cat([x, embedded], dim=1))
        else:
            x = normalize_second_moment(x)
            if embedded is not None:
                x = torch.cat([x, normalize_second_moment(embedded)], dim=1)
        # The gain of sqrt(2) keeps the variance through the leaky ReLU.
        for index in range(self.num_layers):
            x = F.leaky_relu(getattr(self, f"fc{index}")(x), 0.2) * math.sqrt(2)
        return x
